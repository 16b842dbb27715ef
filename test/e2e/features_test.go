//go:build e2e

package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialInNode connects from the node's network. The thread that went there ends.
func dialInNode(t *testing.T, network, address string) (net.Conn, error) {
	t.Helper()
	init := nodeInit(t)
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", init))
		if err != nil {
			done <- result{nil, err}
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{nil, err}
			return
		}
		// A literal address: the dialer stays on this thread.
		conn, err := net.DialTimeout(network, address, 10*time.Second)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// outsideDNS is a name server of the host that knows one answer to every
// question for an address, and counts them. Nodes reach it through their gateway.
func outsideDNS(t *testing.T, address, answer string) *atomic.Int32 {
	t.Helper()
	if out, err := exec.Command("ip", "addr", "add", address+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("add an address for a name server: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "addr", "del", address+"/32", "dev", "lo").Run() })
	conn, err := net.ListenPacket("udp", address+":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	asked := new(atomic.Int32)
	go func() {
		for buf := make([]byte, 4096); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			end := 12
			for end < n && buf[end] != 0 {
				end += 1 + int(buf[end])
			}
			if end += 5; end > n {
				continue
			}
			reply := slices.Clone(buf[:end])
			copy(reply[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
			if binary.BigEndian.Uint16(reply[end-4:]) == 1 {
				if strings.Contains(string(reply), "outside") {
					asked.Add(1)
				}
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
				reply = append(reply, netip.MustParseAddr(answer).AsSlice()...)
			}
			conn.WriteTo(reply, from) // who asked asks again
		}
	}()
	return asked
}

// TestHostDNS: the node and its pods ask the node's own name server, which asks
// the one upstream that answers, remembers, and knows the nodes by name.
func TestHostDNS(t *testing.T) {
	healthy(t)
	deployWorkload(t)
	node, hostname := nodeAddress(t), cluster.name+"-controlplane-1"
	asked := outsideDNS(t, "192.0.2.54", node)
	configure(t, `{"machine": {"network": {"nameservers": ["192.0.2.55", "192.0.2.54"]},
		"features": {"hostDNS": {"enabled": true, "forwardKubeDNSToHost": true, "resolveMemberNames": true}}}}`)
	eventually(t, minute, "resolv.conf of the node", func() error { return contains(talosctl(t, "read", "/etc/resolv.conf"), "nameserver 127.0.0.53\n") })
	eventually(t, minute, "the upstreams", func() error { return contains(talosctl(t, "get", "dnsupstreams"), "192.0.2.54:53") })
	resolver := func(server, protocol string) *net.Resolver {
		return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return dialInNode(t, protocol, server) }}
	}
	for _, server := range []string{"127.0.0.53:53", "169.254.116.108:53"} {
		eventually(t, minute, "the node resolves by "+server, func() error {
			got, err := resolver(server, "udp").LookupHost(t.Context(), "outside.example.")
			if err == nil && !slices.Equal(got, []string{node}) {
				err = fmt.Errorf("addresses %v", got)
			}
			return err
		})
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times, want once", n)
	}
	eventually(t, minute, "a member by name, over TCP", func() error {
		got, err := resolver("127.0.0.53:53", "tcp").LookupHost(t.Context(), hostname+".")
		if err == nil && !slices.Contains(got, node) {
			err = fmt.Errorf("addresses %v", got)
		}
		return err
	})
	if err := contains(talosctl(t, "get", "dnsupstreams", "192.0.2.55"), "false"); err != nil {
		t.Errorf("the silent upstream counts as healthy: %v", err)
	}
	for _, name := range []string{"outside.example.", hostname + "."} {
		eventually(t, 2*minute, "a pod resolves "+name, func() error {
			out, stderr, err := cluster.try("", "kubectl", "get", "--raw",
				"/api/v1/namespaces/default/pods/client:8080/proxy/dial?host="+name+"&port=30080&request=hostname&protocol=http&tries=1")
			if err != nil {
				return fmt.Errorf("%w: %s", err, stderr)
			}
			return contains(out, `"responses":["web-`)
		})
	}
}

// tool is a pod in kube-system with a program of the host's and what else spec
// has; {} in spec is the program.
func tool(t *testing.T, name, program, spec string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/root/var/e2e", nodeInit(t))
	data, err := os.ReadFile(program)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kubectl(t, "delete", "pod", name, "-n", "kube-system", "--ignore-not-found", "--grace-period=1", "--timeout=60s")
		os.Remove(filepath.Join(dir, name)) // the node goes anyhow
	})
	must(t, fmt.Sprintf(spec, name, agnhost), "kubectl", "apply", "-f", "-")
	kubectl(t, "wait", "--for=condition=Ready", "pod/"+name, "-n", "kube-system", "--timeout=300s")
}

const toolAccount = `
apiVersion: talos.dev/v1alpha1
kind: ServiceAccount
metadata: {name: e2e-access, namespace: kube-system}
spec: {roles: ["os:reader"]}
---
apiVersion: talos.dev/v1alpha1
kind: ServiceAccount
metadata: {name: e2e-access, namespace: default}
spec: {roles: ["os:reader"]}
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: kube-system}
spec:
  containers:
  - name: c
    image: %[2]s
    args: [pause]
    volumeMounts:
    - {name: tools, mountPath: /tools, readOnly: true}
    - {name: access, mountPath: /var/run/secrets/talos.dev, readOnly: true}
  volumes:
  - {name: tools, hostPath: {path: /var/e2e}}
  - {name: access, secret: {secretName: e2e-access}}
`

// TestPodUsesTheAPI: a pod that was given access reads, and does no more.
func TestPodUsesTheAPI(t *testing.T) {
	healthy(t)
	configure(t, `{"machine": {"features": {"kubernetesTalosAPIAccess": {"enabled": true, "allowedRoles": ["os:reader"], "allowedKubernetesNamespaces": ["kube-system"]}}}}`)
	eventually(t, minute, "the API knows the kind", func() error { return cluster.works("kubectl", "get", "serviceaccounts.talos.dev", "-A") })
	tool(t, "e2e-access", filepath.Join(cluster.out, "bin", "talosctl"), toolAccount)
	inPod := func(args ...string) (string, error) {
		out, stderr, err := cluster.try("", "kubectl", append([]string{"exec", "-n", "kube-system", "e2e-access", "--", "/tools/e2e-access"}, args...)...)
		return out + stderr, err
	}
	eventually(t, minute, "talosctl in a pod reaches the node by the Service", func() error {
		out, err := inPod("get", "hostname")
		if err == nil {
			err = contains(out, cluster.name+"-controlplane-1")
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, lastLine(out))
		}
		return err
	})
	if out, err := inPod("reboot"); err == nil || !strings.Contains(out, "ermission") {
		t.Errorf("reboot with os:reader = %v, %s; want PermissionDenied", err, out)
	}
	if err := contains(talosctl(t, "logs", "apid", "--tail", "50"), "serviceaccount:kube-system/e2e-access"); err != nil {
		t.Errorf("audit: %v", err)
	}
	reason := kubectl(t, "get", "serviceaccounts.talos.dev", "-n", "default", "e2e-access", "-o", "jsonpath={.status.failureReason}")
	if !strings.Contains(reason, "allowedKubernetesNamespaces") {
		t.Errorf("in another namespace: refused for %q", reason)
	}
	if out := kubectl(t, "get", "secrets", "-n", "default", "-o", "name"); strings.Contains(out, "e2e-access") {
		t.Error("in another namespace: there is a Secret")
	}
}

const toolExtension = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: kube-system, labels: {app: e2e-extension}}
spec:
  containers:
  - name: c
    image: %[2]s
    command: [/tools/e2e-extension, /front]
    readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
    volumeMounts:
    - {name: tools, mountPath: /tools, readOnly: true}
    - {name: front, mountPath: /front, readOnly: true}
  volumes:
  - {name: tools, hostPath: {path: /var/e2e}}
  - {name: front, configMap: {name: extension-apiserver-authentication}}
---
apiVersion: v1
kind: Service
metadata: {name: extension, namespace: kube-system}
spec: {selector: {app: e2e-extension}, ports: [{port: 443, targetPort: 8443}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.e2e.talos.dev}
spec:
  {group: e2e.talos.dev, version: v1, groupPriorityMinimum: 100, versionPriority: 100, insecureSkipTLSVerify: true, service: {name: extension, namespace: kube-system}}
`

// TestAggregatedAPI: an API server in a pod is part of the API. It believes who
// asks because the front proxy's certificate is of the aggregation layer's PKI.
func TestAggregatedAPI(t *testing.T) {
	healthy(t)
	program := filepath.Join(t.TempDir(), "extension")
	build := exec.Command("go", "build", "-o", program, "./extension")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the extension: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		kubectl(t, "delete", "--ignore-not-found", "apiservice/v1.e2e.talos.dev")
		kubectl(t, "delete", "--ignore-not-found", "-n", "kube-system", "service/extension")
	})
	tool(t, "e2e-extension", program, toolExtension)
	eventually(t, minute, "the aggregated API tells who asks", func() error {
		out, stderr, err := cluster.try("", "kubectl", "get", "callers.e2e.talos.dev", "-o", "jsonpath={.items[0].metadata.name} {.items[0].groups}")
		if err != nil {
			return fmt.Errorf("%w: %s", err, lastLine(stderr))
		}
		return contains(out, `admin ["system:masters"`)
	})
	address := kubectl(t, "get", "pod", "e2e-extension", "-n", "kube-system", "-o", "jsonpath={.status.podIP}") + ":8443"
	for name, certificates := range map[string][]tls.Certificate{"none": nil, "kubernetes": {clientCertificates(t)["kubernetes"]}} {
		conn, err := dialInNode(t, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: certificates})
		client.SetDeadline(time.Now().Add(30 * time.Second))
		if err = client.Handshake(); err == nil {
			_, err = client.Read(make([]byte, 1))
		}
		client.Close()
		if err == nil || !strings.Contains(err.Error(), "tls:") {
			t.Errorf("certificate %s: %v, want a refusal", name, err)
		}
	}
}

// TestAcceptedCAs: while an authority is being replaced, certificates of both
// are taken; of one that is not accepted, none.
func TestAcceptedCAs(t *testing.T) {
	ca, key := newCA(t)
	admin := filepath.Join(t.TempDir(), "talosconfig")
	writeTalosconfig(t, admin, leaf(t, ca, key, time.Hour))
	version := func() error { return cluster.works("talosctl", "--talosconfig", admin, "version", "--short") }
	if version() == nil {
		t.Fatal("a certificate of an unknown authority is taken")
	}
	t.Run("accepted", func(t *testing.T) {
		crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
		configure(t, fmt.Sprintf(`{"machine": {"acceptedCAs": [{"crt": %q}]}}`, base64.StdEncoding.EncodeToString(crt)))
		eventually(t, minute, "a certificate of the second authority is taken", version)
		talosctl(t, "version", "--short") // and still one of the first
	})
	eventually(t, minute, "it is refused again", func() error {
		if version() == nil {
			return fmt.Errorf("it is taken")
		}
		return nil
	})
}

// writeTalosconfig is a copy of the cluster's file with another certificate.
func writeTalosconfig(t *testing.T, path string, pair tls.Certificate) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey.(ed25519.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	text := fmt.Sprintf("context: c\ncontexts:\n  c: {endpoints: [%s], ca: %s, crt: %s, key: %s}\n", nodeAddress(t), talosContext(t).CA,
		encode("CERTIFICATE", pair.Certificate[0]), encode("PRIVATE KEY", der))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateIsReplaced: apid serves a new certificate without a restart,
// and who is connected stays so.
func TestCertificateIsReplaced(t *testing.T) {
	healthy(t)
	node, apid := nodeAddress(t), nodeProcess(t, "apid")
	before := follow(t, "logs", "-f", "apid", "--tail", "0")
	serial := servedSerial(t, node)
	configure(t, `{"machine": {"certSANs": ["replaced.example"]}}`)
	eventually(t, minute, "a certificate with the new name", func() error { return servesFor(node, "replaced.example", node) })
	if now := servedSerial(t, node); now == serial {
		t.Error("the serial number is the same")
	}
	talosctl(t, "read", "/etc/os-release")
	eventually(t, minute, "the stream from before goes on", func() error {
		_, err := before.with("/machine.MachineService/Read")
		return err
	})
	if now := nodeProcess(t, "apid"); now != apid {
		t.Errorf("apid is process %d, was %d", now, apid)
	}
}

func servedSerial(t *testing.T, node string) string {
	t.Helper()
	serial := ""
	conn, err := tls.Dial("tcp", net.JoinHostPort(node, strconv.Itoa(50000)), &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		VerifyConnection: func(s tls.ConnectionState) error { serial = s.PeerCertificates[0].SerialNumber.String(); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	return serial
}
