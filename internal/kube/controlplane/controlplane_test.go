package controlplane

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/config"
	"talos/internal/layout"
	"talos/internal/resources/k8s"
)

func generated(t *testing.T, change func(*config.Config)) *config.Config {
	t.Helper()
	s, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := config.Generate(config.Input{ClusterName: "c", Endpoint: "https://10.5.0.1:6443", Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(b.ControlPlane)
	}
	return b.ControlPlane
}

func flag(args []string, name string) (string, bool) {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return v, true
		}
	}
	return "", false
}

var nodeIP = netip.MustParseAddr("10.5.0.2")

// TestCIS holds the flags against the CIS Kubernetes benchmark 1.11, sections
// 1.2 to 1.4; what deviates is in docs/reference/cis.md.
func TestCIS(t *testing.T) {
	cfg := generated(t, nil)
	api, manager, scheduler := apiServerSettings(cfg, nodeIP).Args, managerSettings(cfg).Args, schedulerSettings(cfg).Args
	const absent = "<absent>"
	s := layout.SecretsDir
	for _, c := range []struct {
		check, flag, want string
		args              []string
	}{
		{"1.2.1 no anonymous access but to health checks", "authentication-config", s + "/kube-apiserver/authentication.yaml", api},
		{"1.2.2 no token file", "token-auth-file", absent, api},
		{"1.2.4 kubelet client certificate", "kubelet-client-certificate", s + "/kube-apiserver/kubelet-client.crt", api},
		{"1.2.4 kubelet client key", "kubelet-client-key", s + "/kube-apiserver/kubelet-client.key", api},
		{"1.2.5 kubelet certificates are verified", "kubelet-certificate-authority", s + "/kube-apiserver/ca.crt", api},
		{"1.2.6-8 authorization", "authorization-mode", "Node,RBAC", api},
		{"1.2.10 no AlwaysAdmit", "enable-admission-plugins", "NodeRestriction", api},
		{"1.2.12 ServiceAccount and NamespaceLifecycle stay on", "disable-admission-plugins", absent, api},
		{"1.2.15 profiling", "profiling", "false", api},
		{"1.2.16 audit log", "audit-log-path", "/var/log/audit/kube/kube-apiserver.log", api},
		{"1.2.17 audit log age", "audit-log-maxage", "30", api},
		{"1.2.18 audit log backups", "audit-log-maxbackup", "10", api},
		{"1.2.19 audit log size", "audit-log-maxsize", "100", api},
		{"1.2.21 service account lookup", "service-account-lookup", "true", api},
		{"1.2.22 service account key", "service-account-key-file", s + "/kube-apiserver/service-account.pub", api},
		{"1.2.23 etcd certificate", "etcd-certfile", s + "/kube-apiserver/etcd-client.crt", api},
		{"1.2.23 etcd key", "etcd-keyfile", s + "/kube-apiserver/etcd-client.key", api},
		{"1.2.24 certificate", "tls-cert-file", s + "/kube-apiserver/apiserver.crt", api},
		{"1.2.25 client CA", "client-ca-file", s + "/kube-apiserver/ca.crt", api},
		{"1.2.26 etcd CA", "etcd-cafile", s + "/kube-apiserver/etcd-ca.crt", api},
		{"1.2.27 encryption at rest", "encryption-provider-config", s + "/kube-apiserver/encryption.yaml", api},
		{"1.2.29 strong ciphers", "tls-min-version", "VersionTLS13", api},
		{"1.2.30 short tokens", "service-account-extend-token-expiration", "false", api},
		{"3.2.1 audit policy", "audit-policy-file", s + "/kube-apiserver/audit-policy.yaml", api},
		{"1.3.1 pod garbage", "terminated-pod-gc-threshold", "12500", manager},
		{"1.3.2 profiling", "profiling", "false", manager},
		{"1.3.3 own credentials for each controller", "use-service-account-credentials", "true", manager},
		{"1.3.4 service account key", "service-account-private-key-file", s + "/kube-controller-manager/service-account.key", manager},
		{"1.3.5 root CA", "root-ca-file", s + "/kube-controller-manager/ca.crt", manager},
		{"1.3.6 rotation of kubelet certificates stays on", "feature-gates", absent, manager},
		{"1.3.7 bind address", "bind-address", "127.0.0.1", manager},
		{"1.4.1 profiling", "profiling", "false", scheduler},
		{"1.4.2 bind address", "bind-address", "127.0.0.1", scheduler},
	} {
		got, ok := flag(c.args, c.flag)
		if !ok {
			got = absent
		}
		if got != c.want {
			t.Errorf("%s: --%s = %s, want %s", c.check, c.flag, got, c.want)
		}
	}
}

func TestUserFlags(t *testing.T) {
	for _, c := range []struct {
		name, flag string
		extra      map[string]string
		want       string
	}{
		{"the user's wins", "audit-log-maxage", map[string]string{"audit-log-maxage": "7"}, "7"},
		{"with dashes too", "audit-log-maxage", map[string]string{"--audit-log-maxage": "7"}, "7"},
		{"a new one", "v", map[string]string{"v": "4"}, "4"},
		{"plugins are added", "enable-admission-plugins", map[string]string{"enable-admission-plugins": "AlwaysPullImages,NodeRestriction"}, "NodeRestriction,AlwaysPullImages"},
		{"what the node needs stays", "etcd-servers", map[string]string{"etcd-servers": "http://evil:2379"}, "https://127.0.0.1:2379"},
		{"encryption stays", "encryption-provider-config", map[string]string{"encryption-provider-config": "/dev/null"}, layout.SecretsDir + "/kube-apiserver/encryption.yaml"},
		{"OpenID excludes the file", "anonymous-auth", map[string]string{"oidc-issuer-url": "https://x"}, "false"},
	} {
		args := apiServerSettings(generated(t, func(cfg *config.Config) { cfg.Cluster.APIServer = &config.APIServer{ExtraArgs: c.extra} }), nodeIP).Args
		if got, _ := flag(args, c.flag); got != c.want {
			t.Errorf("%s: --%s = %q, want %q", c.name, c.flag, got, c.want)
		}
	}
}

func TestNodeMaskFlags(t *testing.T) {
	for _, c := range []struct {
		cidrs []string
		want  []string
	}{
		{[]string{"10.244.0.0/16"}, []string{"--node-cidr-mask-size=24"}},
		{[]string{"fd00::/56"}, []string{"--node-cidr-mask-size=64"}},
		{[]string{"10.244.0.0/16", "fd00::/56"}, []string{"--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64"}},
	} {
		a := args{}
		maskSizes(a, k8s.ControllerManagerConfigSpec{PodCIDRs: c.cidrs, NodeCIDRMaskSizeIPv4: 24, NodeCIDRMaskSizeIPv6: 64})
		if got := a.list(); !slices.Equal(got, c.want) {
			t.Errorf("maskSizes(%v) = %v, want %v", c.cidrs, got, c.want)
		}
	}
}

// TestPodsAreConfined holds for all three components.
func TestPodsAreConfined(t *testing.T) {
	cfg := generated(t, nil)
	for name, c := range map[string]struct {
		pod m
		uid int
	}{
		APIServer: {apiServerPod(apiServerSettings(cfg, nodeIP), "h"), layout.APIServerUID},
		Manager:   {managerPod(managerSettings(cfg), "h"), layout.ManagerUID},
		Scheduler: {schedulerPod(schedulerSettings(cfg), "h"), layout.SchedulerUID},
	} {
		spec := c.pod["spec"].(m)
		want := m{"runAsUser": c.uid, "runAsGroup": c.uid, "runAsNonRoot": true, "seccompProfile": m{"type": "RuntimeDefault"}}
		if diff := cmp.Diff(want, spec["securityContext"]); diff != "" {
			t.Errorf("%s: pod security context: %s", name, diff)
		}
		container := spec["containers"].([]any)[0].(m)
		want = m{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": m{"drop": []any{"ALL"}}}
		if diff := cmp.Diff(want, container["securityContext"]); diff != "" {
			t.Errorf("%s: container security context: %s", name, diff)
		}
		for _, v := range container["volumeMounts"].([]any) {
			mount := v.(m)
			if mount["readOnly"] != true && mount["name"] != "audit" {
				t.Errorf("%s: mount %v is writable", name, mount)
			}
		}
		if spec["priorityClassName"] != "system-node-critical" || spec["hostNetwork"] != true {
			t.Errorf("%s: priority %v, host network %v", name, spec["priorityClassName"], spec["hostNetwork"])
		}
	}
}

func TestAuthorizersAlwaysHaveNodeAndRBAC(t *testing.T) {
	cfg := generated(t, func(c *config.Config) {
		c.Cluster.APIServer = &config.APIServer{AuthorizationConfig: []config.Authorizer{{Type: "Webhook", Name: "hook"}, {Type: "RBAC", Name: "rbac"}}}
	})
	var got []string
	for _, a := range authorizationSettings(cfg).Config {
		got = append(got, a.Type)
	}
	if want := []string{"Node", "Webhook", "RBAC"}; !slices.Equal(got, want) {
		t.Errorf("authorizers = %v, want %v", got, want)
	}
	if _, ok := flag(apiServerSettings(cfg, nodeIP).Args, "authorization-config"); !ok {
		t.Error("authorizers of the configuration are not used")
	}
}

// TestHash: a pod restarts for what its program reads once, not for what it
// rereads.
func TestHash(t *testing.T) {
	f := files{"apiserver.crt": []byte("1"), "encryption.yaml": []byte("1")}
	before := f.hash(apiServerReread...)
	f["apiserver.crt"] = []byte("2")
	if f.hash(apiServerReread...) != before {
		t.Error("a renewed certificate restarts the API server, which rereads it")
	}
	f["encryption.yaml"] = []byte("2")
	if f.hash(apiServerReread...) == before {
		t.Error("another encryption configuration does not restart the API server")
	}
}

func TestWriteManifests(t *testing.T) {
	dir := t.TempDir()
	for _, pass := range []map[string]m{{"a": {"kind": "Pod"}, "b": {"kind": "Pod"}}, {"b": {"kind": "Pod"}}} {
		if err := writeManifests(dir, pass); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadDir(dir)
	if err != nil || len(have) != 1 || have[0].Name() != manifestFile("b") {
		t.Errorf("the folder holds %v, %v, want exactly the pod that is wanted", have, err)
	}
}

// What the user says of callers replaces ours; where it says nothing of those
// without credentials, they reach the health checks only.
func TestAuthenticationSettings(t *testing.T) {
	for _, c := range []struct {
		own  map[string]any
		open bool // to callers without credentials, beyond the health checks
	}{
		{nil, false},
		{map[string]any{"jwt": []any{}}, false},
		{map[string]any{"anonymous": map[string]any{"enabled": true}}, true},
	} {
		cfg := generated(t, func(cfg *config.Config) { cfg.Cluster.APIServer = &config.APIServer{AuthenticationConfig: c.own} })
		values := authenticationSettings(cfg).Config.Values
		if values["kind"] != "AuthenticationConfiguration" || values["apiVersion"] != "apiserver.config.k8s.io/v1" {
			t.Errorf("%v: no AuthenticationConfiguration: %v", c.own, values)
		}
		anonymous, _ := values["anonymous"].(map[string]any)
		if _, bounded := anonymous["conditions"]; anonymous == nil || bounded == c.open {
			t.Errorf("%v: anonymous is %v, want open %v", c.own, anonymous, c.open)
		}
		if _, ok := values["jwt"]; ok != (c.own["jwt"] != nil) {
			t.Errorf("%v: jwt is lost: %v", c.own, values)
		}
	}
}
