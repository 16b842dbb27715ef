package provision

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"talos/config"
	"talos/internal/provision/process"
)

func TestCheckOptions(t *testing.T) {
	ok := Options{Name: "demo", ControlPlanes: 1}
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   string // part of the error; "": none
	}{
		{"plain", func(o *Options) {}, ""},
		{"dashes and digits", func(o *Options) { o.Name = "a-1-b2" }, ""},
		{"no name", func(o *Options) { o.Name = "" }, "cluster name"},
		{"upper case", func(o *Options) { o.Name = "Demo" }, "cluster name"},
		{"a path", func(o *Options) { o.Name = "../x" }, "cluster name"},
		{"dash at the end", func(o *Options) { o.Name = "x-" }, "cluster name"},
		{"too long", func(o *Options) { o.Name = strings.Repeat("x", 41) }, "cluster name"},
		{"no control plane", func(o *Options) { o.ControlPlanes = 0 }, "at least 1"},
		{"fewer than no workers", func(o *Options) { o.Workers = -1 }, "0 or more"},
		{"too many", func(o *Options) { o.Workers = 100 }, "at most"},
		{"little memory", func(o *Options) { o.Memory = 1 << 20 }, "at least 1024 MiB"},
		{"cpus", func(o *Options) { o.CPUs = -1 }, "positive"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := ok
			tc.change(&o)
			err := o.check()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("check = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestNodes(t *testing.T) {
	o := Options{Name: "demo", ControlPlanes: 1, Workers: 2}
	got, err := o.nodes(netip.MustParsePrefix("10.5.3.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, n := range got {
		lines = append(lines, n.Name+" "+n.Address.String()+" "+n.MAC)
	}
	want := []string{
		"demo-controlplane-1 10.5.3.2 02:54:0a:05:03:02",
		"demo-worker-1 10.5.3.3 02:54:0a:05:03:03",
		"demo-worker-2 10.5.3.4 02:54:0a:05:03:04",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	o.Workers = 5 // .2 to .7 in a network that ends with .7, for broadcasts
	if _, err := o.nodes(netip.MustParsePrefix("10.5.3.0/29")); err == nil {
		t.Error("six nodes fit into a /29, want an error")
	}
	o.Workers = 4
	if _, err := o.nodes(netip.MustParsePrefix("10.5.3.0/29")); err != nil {
		t.Errorf("five nodes in a /29: %v", err)
	}
}

func TestDecide(t *testing.T) {
	for _, tc := range []struct {
		power  string
		sig    syscall.Signal
		halted bool
		want   action
	}{
		{"reboot", 0, false, startNow},
		{"reboot", 0, true, leaveOff},
		{"poweroff", syscall.SIGHUP, false, leaveOff},
		{"", syscall.SIGHUP, false, startNow},
		{"", syscall.SIGINT, false, leaveOff},
		{"", syscall.SIGKILL, false, startLater},
		{"", 0, false, startLater},
		{"torn", 0, false, startLater},
	} {
		if got := decide(tc.power, tc.sig, tc.halted); got != tc.want {
			t.Errorf("decide(%q, %v, %v) = %v, want %v", tc.power, tc.sig, tc.halted, got, tc.want)
		}
	}
}

// example writes the state of a cluster, without anything on the host.
func example(t *testing.T, o Options) *Cluster {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	d, err := newDirs(o.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(d.nodes(), 0o700); err != nil {
		t.Fatal(err)
	}
	c := &Cluster{
		Name: o.Name, KubernetesVersion: config.DefaultKubernetesVersion, CIDR: netip.MustParsePrefix("10.5.0.0/24"),
		Gateway: netip.MustParseAddr("10.5.0.1"), Endpoint: "https://10.5.0.1:6443", Created: time.Now().UTC().Truncate(time.Second), dirs: d,
	}
	if c.Nodes, err = o.nodes(c.CIDR); err != nil {
		t.Fatal(err)
	}
	if err := c.generate(o); err != nil {
		t.Fatal(err)
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	return c
}

// configOf is where a container finds its configuration.
func configOf(c *Cluster, i int) string {
	return filepath.Join(c.dirs.container(c.Nodes[i].Name).PlatformDir(), "config.yaml")
}

func TestStateFiles(t *testing.T) {
	c := example(t, Options{Name: "demo", ControlPlanes: 1, Workers: 1})
	got, err := Load("demo")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got, cmp.AllowUnexported(Cluster{}, dirs{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("Load (-saved +loaded):\n%s", diff)
	}
	all, err := List()
	if err != nil || len(all) != 1 || all[0].Name != "demo" {
		t.Errorf("List = %v, %v, want demo", all, err)
	}
	for _, f := range []string{c.dirs.secrets(), c.dirs.talosconfig(), c.dirs.kubeconfig(), c.dirs.registryKey(), configOf(c, 0)} {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", f, info.Mode())
		}
	}
	if _, err := Load("other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Load of no cluster = %v, want ErrNotFound", err)
	}
	if _, err := newKube(c.Kubeconfig()); err != nil {
		t.Errorf("read own kubeconfig: %v", err)
	}
}

func TestPatches(t *testing.T) {
	c := example(t, Options{
		Name: "demo", ControlPlanes: 1, Workers: 1,
		ConfigPatches:       [][]byte{[]byte("machine: {nodeLabels: {all: nodes}}")},
		WorkerConfigPatches: [][]byte{[]byte("machine: {nodeLabels: {only: workers}}")},
	})
	for i, want := range []map[string]string{{"all": "nodes"}, {"all": "nodes", "only": "workers"}} {
		path := configOf(c, i)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cfg, _, err := config.Load(path, data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, cfg.Machine.NodeLabels); diff != "" {
			t.Errorf("labels of %s (-want +got):\n%s", c.Nodes[i].Name, diff)
		}
	}
}

func TestMatches(t *testing.T) {
	c := example(t, Options{Name: "demo", ControlPlanes: 1})
	same := Options{Name: "demo", ControlPlanes: 1, KubernetesVersion: c.KubernetesVersion}
	if err := c.matches(same); err != nil {
		t.Errorf("matches what it was made from = %v", err)
	}
	for name, change := range map[string]func(*Options){
		"workers": func(o *Options) { o.Workers = 1 },
		"version": func(o *Options) { o.KubernetesVersion = "1.36.3" },
		"network": func(o *Options) { o.CIDR = netip.MustParsePrefix("10.6.0.0/24") },
	} {
		o := same
		change(&o)
		if err := c.matches(o); !errors.Is(err, ErrExists) {
			t.Errorf("%s: matches = %v, want ErrExists", name, err)
		}
	}
}

func TestLockExcludes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := lockFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFile(path, false); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("second lock = %v, want EWOULDBLOCK", err)
	}
	waited := make(chan error, 1)
	go func() {
		g, err := lockFile(path, true)
		if err == nil {
			if _, statErr := os.Stat(path); statErr != nil {
				err = statErr // it got the one that was removed
			}
			g.Close()
		}
		waited <- err
	}()
	os.Remove(path)
	f.Close()
	if err := <-waited; err != nil {
		t.Errorf("lock after the file was removed: %v", err)
	}
}

func TestStatusWithoutProcesses(t *testing.T) {
	c := example(t, Options{Name: "demo", ControlPlanes: 1})
	self, err := process.Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	self.Start++ // another process that had this id before
	if err := c.dirs.writeSupervisor(supervisorState{Process: self, Ready: true}); err != nil {
		t.Fatal(err)
	}
	s := c.Status(t.Context())
	if s.Supervisor != 0 || s.Nodes[0].State != StateOff || s.Nodes[0].PID != 0 {
		t.Errorf("Status = %+v, want nothing running", s)
	}
}

// TestNoteDigest: what is noted of an image is what sha256sum says of it.
func TestNoteDigest(t *testing.T) {
	dir := t.TempDir()
	image, note := filepath.Join(dir, "image"), filepath.Join(dir, "note")
	if err := os.WriteFile(image, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := noteDigest(image, note); err != nil {
		t.Fatal(err)
	}
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n" // FIPS 180-2, B.1
	if got, err := os.ReadFile(note); string(got) != want || err != nil {
		t.Errorf("noted %q, %v, want %q", got, err, want)
	}
}
