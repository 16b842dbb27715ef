package cri

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/google/go-cmp/cmp"

	"talos/config"
	"talos/internal/containers"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func yes() *bool { return new(true) }

var registries = &config.Registries{
	Mirrors: map[string]config.RegistryMirror{
		"docker.io":         {Endpoints: []string{"https://cache.example:5000", "http://10.0.0.1/v2/hub"}, OverridePath: yes()},
		"registry.k8s.io":   {Endpoints: []string{"https://172.20.0.1:5443"}},
		"only.example":      {Endpoints: []string{"https://a.example", "https://b.example"}, SkipFallback: yes()},
		"*":                 {Endpoints: []string{"https://172.20.0.1:5443"}},
		"nothing.to.mirror": {},
	},
	Config: map[string]config.Registry{
		"172.20.0.1:5443":     {TLS: &config.RegistryTLS{CA: config.Base64("CA of the mirror\n")}},
		"b.example":           {TLS: &config.RegistryTLS{InsecureSkipVerify: yes()}},
		"private.example:443": {TLS: &config.RegistryTLS{ClientIdentity: &config.CertificateAndKey{Crt: config.Base64("crt"), Key: config.Base64("key")}}, Auth: &config.RegistryAuth{Username: "joe", Password: `pa"ss\`}},
		"token.example":       {Auth: &config.RegistryAuth{Auth: "am9lOnNlY3JldA=="}},
	},
}

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestFiles(t *testing.T) {
	files := Files(FromConfig(registries))
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(files)) {
		b.WriteString("-- " + path + " --\n" + files[path])
	}
	golden(t, "hosts.txt", b.String())
}

// TestContainerdReadsFiles asks containerd's own reader where it would go.
func TestContainerdReadsFiles(t *testing.T) {
	dir := t.TempDir()
	files := Files(FromConfig(registries))
	for path, text := range files { // certificates are checked when read; here there are none
		if strings.HasSuffix(path, "hosts.toml") {
			var kept []string
			for line := range strings.Lines(text) {
				if !strings.Contains(line, ".pem") {
					kept = append(kept, line)
				}
			}
			files[path] = strings.Join(kept, "")
		}
	}
	if err := writeTree(dir, files); err != nil {
		t.Fatal(err)
	}
	hosts := dockerconfig.ConfigureHosts(t.Context(), dockerconfig.HostOptions{HostDir: dockerconfig.HostDirFromRoot(dir)})
	for name, want := range map[string][]string{
		"docker.io":           {"https://cache.example:5000", "http://10.0.0.1/v2/hub", "https://registry-1.docker.io/v2"},
		"registry.k8s.io":     {"https://172.20.0.1:5443/v2", "https://registry.k8s.io/v2"},
		"only.example":        {"https://a.example/v2", "https://b.example/v2"},
		"private.example:443": {"https://172.20.0.1:5443/v2", "https://private.example:443/v2"},
		"unheard.of":          {"https://172.20.0.1:5443/v2", "https://unheard.of/v2"},
	} {
		got, err := hosts(name)
		if err != nil {
			t.Errorf("hosts(%s): %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, urls(got)); diff != "" {
			t.Errorf("hosts(%s) (-want +got):\n%s", name, diff)
		}
	}
}

func urls(hosts []docker.RegistryHost) []string {
	var out []string
	for _, h := range hosts {
		out = append(out, h.Scheme+"://"+h.Host+h.Path)
	}
	return out
}

func TestWriteTreeRemoves(t *testing.T) {
	dir := t.TempDir()
	if err := writeTree(dir, map[string]string{"a/hosts.toml": "1", "b/hosts.toml": "2"}); err != nil {
		t.Fatal(err)
	}
	if err := writeTree(dir, map[string]string{"a/hosts.toml": "3"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a/hosts.toml")); err != nil || string(got) != "3" {
		t.Errorf("a = %q, %v, want 3", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "b")); !os.IsNotExist(err) {
		t.Errorf("b is there still: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	want := map[string]containers.Credentials{
		"private.example:443": {Username: "joe", Secret: `pa"ss\`},
		"token.example":       {Username: "joe", Secret: "secret"},
	}
	if diff := cmp.Diff(want, credentialsOf(FromConfig(registries))); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
}

func TestConfigs(t *testing.T) {
	golden(t, "system.toml", SystemConfig())
	golden(t, "cri.toml", Config(Options{
		SandboxImage: "registry.k8s.io/pause:3.10.2", Snapshotter: "overlayfs", RestrictOOM: true, Auths: authsOf(FromConfig(registries)),
	}))
}

// TestConfigWithoutOverlay: everything in containerd that unpacks images uses the
// snapshotter that was chosen; one that is missing would keep the CRI from starting.
func TestConfigWithoutOverlay(t *testing.T) {
	text := Config(Options{SandboxImage: "pause", Snapshotter: "native"})
	if n := strings.Count(text, `snapshotter = "native"`); n != 2 {
		t.Errorf("%d settings of the snapshotter, want that of the CRI and that of the transfer service:\n%s", n, text)
	}
}
