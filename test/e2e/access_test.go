//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestHandshakeRefused: who has no certificate of this cluster does not get
// past TLS, and the node's log says who it was and why.
func TestHandshakeRefused(t *testing.T) {
	node := nodeAddress(t)
	otherCert, otherKey := newCA(t)
	osCert, osKey := clusterCA(t)
	for _, c := range []struct {
		name, logged string
		certificates []tls.Certificate
	}{
		{"none", "certificate", nil},
		{"other CA", "certificate", []tls.Certificate{leaf(t, otherCert, otherKey, time.Hour)}},
		{"expired", "expired", []tls.Certificate{leaf(t, osCert, osKey, -time.Minute)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", node+":50000", &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: c.certificates})
			if err == nil {
				// With TLS 1.3 the server's refusal comes after our half of the handshake.
				conn.SetDeadline(time.Now().Add(30 * time.Second))
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			if err == nil || strings.Contains(err.Error(), "i/o timeout") {
				t.Fatalf("handshake = %v, want a refusal", err)
			}
			eventually(t, minute, "apid's log names the peer and the reason", func() error {
				log := talosctl(t, "logs", "apid", "--tail", "200")
				for line := range strings.Lines(log) {
					if strings.Contains(line, "handshake") && strings.Contains(line, c.logged) && strings.Contains(line, "peer") {
						return nil
					}
				}
				return fmt.Errorf("log: %s", lastLine(log))
			})
		})
	}
}

// TestReaderMayNotWrite: a certificate with the reader's role reads, and is
// denied everything else.
func TestReaderMayNotWrite(t *testing.T) {
	reader := filepath.Join(t.TempDir(), "reader")
	talosctl(t, "config", "new", reader, "--roles", "os:reader", "--crt-ttl", "1h")
	if _, stderr, err := cluster.try("", "talosctl", "--talosconfig", reader, "version"); err != nil {
		t.Fatalf("version as reader: %v: %s", err, stderr)
	}
	for _, args := range [][]string{
		{"reboot"}, {"bootstrap"}, {"service", "kubelet", "restart"}, {"get", "machineconfig"}, {"kubeconfig", filepath.Join(t.TempDir(), "k")},
	} {
		_, stderr, err := cluster.try("", "talosctl", append([]string{"--talosconfig", reader}, args...)...)
		if err == nil || !strings.Contains(stderr, "PermissionDenied") && !strings.Contains(stderr, "may not") {
			t.Errorf("%v as reader = %v, %q; want PermissionDenied", args, err, stderr)
		}
	}
}

// TestSeparatePKIs: a certificate of one PKI is refused by the servers of the others.
func TestSeparatePKIs(t *testing.T) {
	node := nodeAddress(t)
	for port, what := range map[string]string{"50000": "apid", "2379": "etcd", "2380": "etcd peers"} {
		for name, pair := range clientCertificates(t) {
			if name == "os" && port == "50000" {
				continue
			}
			conn, err := tls.Dial("tcp", node+":"+port, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}})
			if err == nil {
				conn.SetDeadline(time.Now().Add(30 * time.Second))
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			if err == nil || strings.Contains(err.Error(), "i/o timeout") {
				t.Errorf("%s accepted a client certificate of the %s PKI: %v", what, name, err)
			}
		}
	}
}

// clientCertificates are valid ones: the OS's and Kubernetes's administrator.
func clientCertificates(t *testing.T) map[string]tls.Certificate {
	t.Helper()
	var kube struct {
		Users []struct {
			User struct {
				Certificate string `yaml:"client-certificate-data"`
				Key         string `yaml:"client-key-data"`
			}
		}
	}
	readYAML(t, cluster.kubeconfig, &kube)
	cfg := talosContext(t)
	return map[string]tls.Certificate{
		"kubernetes": pair(t, kube.Users[0].User.Certificate, kube.Users[0].User.Key),
		"os":         pair(t, cfg.Crt, cfg.Key),
	}
}

type talosContextFile struct{ CA, Crt, Key string }

func talosContext(t *testing.T) talosContextFile {
	t.Helper()
	var file struct {
		Context  string
		Contexts map[string]talosContextFile
	}
	readYAML(t, cluster.talosconfig, &file)
	return file.Contexts[file.Context]
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
}

func pair(t *testing.T, crt, key string) tls.Certificate {
	t.Helper()
	c, err1 := base64.StdEncoding.DecodeString(crt)
	k, err2 := base64.StdEncoding.DecodeString(key)
	p, err3 := tls.X509KeyPair(c, k)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatalf("certificate: %v %v %v", err1, err2, err3)
	}
	return p
}

// clusterCA takes the OS CA, with its key, from the node's configuration.
func clusterCA(t *testing.T) (*x509.Certificate, any) {
	t.Helper()
	var secrets struct {
		Certs struct{ OS struct{ Crt, Key string } }
	}
	found := ""
	filepath.WalkDir(cluster.home, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Name() == "secrets.yaml" {
			found = path
		}
		return nil
	})
	if found == "" {
		t.Fatal("the cluster's state has no secrets.yaml")
	}
	readYAML(t, found, &secrets)
	crt, err := base64.StdEncoding.DecodeString(secrets.Certs.OS.Crt)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(secrets.Certs.OS.Key)
	if err != nil {
		t.Fatal(err)
	}
	certBlock, _ := pem.Decode(crt)
	keyBlock, _ := pem.Decode(key)
	if certBlock == nil || keyBlock == nil {
		t.Fatal("secrets.yaml: the OS CA is not PEM")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert, private
}

func newCA(t *testing.T) (*x509.Certificate, any) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"talos"}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// leaf is an administrator's certificate that ends after lifetime from now.
func leaf(t *testing.T, ca *x509.Certificate, caKey any, lifetime time.Duration) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{Organization: []string{"os:admin"}, CommonName: "intruder"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, public, caKey)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: parsed}
}
