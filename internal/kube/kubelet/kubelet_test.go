package kubelet

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"talos/config"
	"talos/internal/pki"
	"talos/internal/resources/k8s"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

func spec(t *testing.T, change func(*config.Kubelet), where Surroundings) k8s.KubeletSpecSpec {
	t.Helper()
	s, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := config.Generate(config.Input{ClusterName: "c", Endpoint: "https://10.5.0.1:6443", Secrets: s})
	if err != nil {
		t.Fatal(err)
	}
	if b.ControlPlane.Machine.Kubelet == nil {
		b.ControlPlane.Machine.Kubelet = &config.Kubelet{}
	}
	if change != nil {
		change(b.ControlPlane.Machine.Kubelet)
	}
	return Spec(settings(b.ControlPlane), "n1", []netip.Addr{netip.MustParseAddr("10.5.0.2")}, true, where)
}

// TestConfiguration holds the configuration against section 4.2 of the CIS
// Kubernetes benchmark, and against what the node needs.
func TestConfiguration(t *testing.T) {
	c := spec(t, nil, Surroundings{}).Config.Values
	for _, want := range []struct {
		path  []string
		value any
	}{
		{[]string{"authentication", "anonymous", "enabled"}, false},
		{[]string{"authentication", "webhook", "enabled"}, true},
		{[]string{"authentication", "x509", "clientCAFile"}, caFile},
		{[]string{"authorization", "mode"}, "Webhook"},
		{[]string{"readOnlyPort"}, 0},
		{[]string{"streamingConnectionIdleTimeout"}, "5m0s"},
		{[]string{"rotateCertificates"}, true},
		{[]string{"serverTLSBootstrap"}, true},
		{[]string{"tlsMinVersion"}, "VersionTLS13"},
		{[]string{"protectKernelDefaults"}, true},
		{[]string{"staticPodPath"}, "/etc/kubernetes/manifests"},
		{[]string{"failCgroupV1"}, false},
		{[]string{"oomScoreAdj"}, 0},
	} {
		var got any = c
		for _, p := range want.path {
			got = got.(map[string]any)[p]
		}
		if got != want.value {
			t.Errorf("%v = %v, want %v", want.path, got, want.value)
		}
	}
	if spec(t, nil, Surroundings{Container: true}).Config.Values["protectKernelDefaults"] != false {
		t.Error("a node in a container insists on kernel settings that are the host's")
	}
	if got := spec(t, nil, Surroundings{LowerOOMScore: true}).Config.Values["oomScoreAdj"]; got != -450 {
		t.Errorf("oomScoreAdj = %v where the kernel lets us, want -450", got)
	}
}

func TestUserSettings(t *testing.T) {
	s := spec(t, func(k *config.Kubelet) {
		k.ExtraConfig = map[string]any{
			"maxPods": 42, "staticPodPath": "/evil", "authentication": map[string]any{"anonymous": map[string]any{"enabled": true}},
			"systemReserved": map[string]any{"cpu": "1"},
		}
		k.ExtraArgs = map[string]string{"v": "4", "config": "/evil"}
	}, Surroundings{})
	c := s.Config.Values
	if c["maxPods"] != 42 || c["systemReserved"].(map[string]any)["cpu"] != "1" || c["systemReserved"].(map[string]any)["pid"] != "100" {
		t.Errorf("the user's fields are not merged: maxPods %v, systemReserved %v", c["maxPods"], c["systemReserved"])
	}
	if c["staticPodPath"] == "/evil" || c["authentication"].(map[string]any)["anonymous"].(map[string]any)["enabled"] == true {
		t.Error("the user replaced a field that the node needs")
	}
	if !slices.Contains(s.Args, "--v=4") || !slices.Contains(s.Args, "--config="+ConfigFile) {
		t.Errorf("args = %v", s.Args)
	}
}

func TestCredentials(t *testing.T) {
	ca := newCA(t)
	g := given{
		spec:    spec(t, nil, Surroundings{}),
		secrets: secrets.KubeletSecretsSpec{AcceptedCAs: []*respem.Certificate{{Crt: ca.Crt}}, BootstrapTokenID: "a", BootstrapTokenSecret: "b"},
		server:  "https://127.0.0.1:7445", issuing: ca, now: time.Now(),
	}
	root := t.TempDir()
	current := func() string {
		t.Helper()
		if err := prepare(root, g); err != nil {
			t.Fatal(err)
		}
		link, err := os.Readlink(root + pkiDir + "/kubelet-client-current.pem")
		if err != nil {
			return ""
		}
		return link
	}
	first := current()
	if _, err := os.Stat(root + bootstrapFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bootstrap token of a kubelet with a certificate: %v, want none", err)
	}
	if first == "" {
		t.Fatal("a control plane node has not issued its kubelet's first certificate")
	}
	pair, err := tls.LoadX509KeyPair(root+first, root+first)
	if err != nil {
		t.Fatal(err)
	}
	if pair.Leaf.Subject.CommonName != "system:node:n1" || !slices.Equal(pair.Leaf.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("subject = %v", pair.Leaf.Subject)
	}

	// The link is absolute, for the node's own root; here it must point below ours.
	relink(t, root, first)
	g.now = g.now.Add(time.Hour)
	if got := current(); got != root+first {
		t.Errorf("certificate = %s, want the one that is there (%s)", got, first)
	}
	g.spec.ExpectedNodename = "n2"
	if got := current(); got == root+first || got == "" {
		t.Errorf("certificate = %q after the node got another name, want a new one", got)
	}
	g.issuing, g.spec.ExpectedNodename = nil, "n3"
	if got := current(); got != "" {
		t.Errorf("certificate = %q on a worker with another's, want none", got)
	}
	if _, err := os.Stat(root + KubeconfigFile); err == nil {
		t.Error("a kubeconfig without a certificate keeps the kubelet from asking for one")
	}
	if info, err := os.Stat(root + bootstrapFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("bootstrap kubeconfig: %v, %v; want mode 0600", info, err)
	}
	if err := forgetToken(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root + bootstrapFile); err != nil {
		t.Errorf("the bootstrap token went before the certificate came: %v", err)
	}
	if err := os.WriteFile(root+ClientFile, nil, 0o600); err != nil { // as the kubelet does
		t.Fatal(err)
	}
	if err := forgetToken(root); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root + bootstrapFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("bootstrap token after the certificate came: %v, want it gone", err)
	}
}

func relink(t *testing.T, root, to string) {
	t.Helper()
	link := root + pkiDir + "/kubelet-client-current.pem"
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root+to, link); err != nil {
		t.Fatal(err)
	}
}

func newCA(t *testing.T) *respem.CertificateAndKey {
	t.Helper()
	pair, err := pki.NewCA(pki.ECDSAP256, pki.Subject{CommonName: "kubernetes"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &respem.CertificateAndKey{Crt: pair.Crt, Key: pair.Key}
}
