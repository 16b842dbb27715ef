package talosconfig_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/client/talosconfig"
)

func TestMergeRenames(t *testing.T) {
	at := func(endpoint string) *talosconfig.Context { return &talosconfig.Context{Endpoints: []string{endpoint}} }
	have := &talosconfig.Config{Context: "a", Contexts: map[string]*talosconfig.Context{"a": at("1"), "a-1": at("2"), "b": at("3")}}
	renames := have.Merge(&talosconfig.Config{Context: "a", Contexts: map[string]*talosconfig.Context{"a": at("4"), "b": at("3"), "c": at("5")}})
	want := []talosconfig.Rename{{From: "a", To: "a-2"}, {From: "b", To: "b"}, {From: "c", To: "c"}}
	if diff := cmp.Diff(want, renames); diff != "" {
		t.Errorf("Merge renamed (-want +got):\n%s", diff)
	}
	if have.Context != "a-2" {
		t.Errorf("current context = %q, want a-2", have.Context)
	}
	if diff := cmp.Diff([]string{"a", "a-1", "a-2", "b", "c"}, have.Names()); diff != "" {
		t.Errorf("contexts (-want +got):\n%s", diff)
	}
}

func TestSaveKeepsLinkAndHidesKeys(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := (&talosconfig.Config{Context: "x"}).Save(link); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone (%v)", err)
	}
	info, err := os.Stat(real)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v (%v), want 0600", info.Mode(), err)
	}
	cfg, err := talosconfig.Load(real)
	if err != nil || cfg.Context != "x" {
		t.Errorf("Load = %+v, %v", cfg, err)
	}
}

func TestFind(t *testing.T) {
	home := t.TempDir()
	for name, tc := range map[string]struct {
		flag string
		env  map[string]string
		want string
	}{
		"flag":     {"/f", map[string]string{"TALOSCONFIG": "/t", "HOME": home}, "/f"},
		"variable": {"", map[string]string{"TALOSCONFIG": "/t", "XDG_CONFIG_HOME": "/x", "HOME": home}, "/t"},
		"xdg":      {"", map[string]string{"XDG_CONFIG_HOME": "/x", "HOME": home}, "/x/talos/config.yaml"},
		"home":     {"", map[string]string{"HOME": home}, filepath.Join(home, ".talos/config")},
		"nothing":  {"", nil, ""},
	} {
		got, err := talosconfig.Find(tc.flag, func(k string) string { return tc.env[k] })
		if got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%s: Find = %q, %v; want %q", name, got, err, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("context: a\ncontexts:\n    a:\n        endpoints: [x]\n        ca: eA==\n"))
	f.Add([]byte("contexts: {a: }"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := talosconfig.Parse(data)
		if err != nil {
			return
		}
		for _, name := range cfg.Names() {
			ctx, err := cfg.Select(name)
			if name != "" && err != nil {
				t.Fatal(err)
			}
			if ctx != nil {
				_, _ = ctx.Certificate() // must not panic
				_, _ = ctx.Authorities()
			}
		}
		if _, err := cfg.Bytes(); err != nil {
			t.Errorf("Bytes of what was parsed: %v", err)
		}
	})
}
