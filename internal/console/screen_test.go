package console

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"talos/internal/resources/cluster"
	"talos/internal/resources/runtime"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

const print = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

// states are the machine's in the course of its life.
func states() map[string]State {
	address := []netip.Addr{netip.MustParseAddr("10.5.0.9"), netip.MustParseAddr("fd00:10:5::9")}
	link := []Link{{"eth0", "52:54:00:12:34:56", true}, {"eth1", "52:54:00:12:34:57", false}}
	return map[string]State{
		"start": {Version: "v1.2.3"},
		"booting": {
			Version: "v1.2.3", Stage: runtime.StageBooting, Links: link,
			Wrong: []Problem{{"network", "the node has no address"}, {"services", "networkd has not been checked yet"}},
		},
		"maintenance": {Version: "v1.2.3", Stage: runtime.StageMaintenance, Ready: true, Hostname: "talos-a1b2c3", Addresses: address, Links: link, Fingerprint: print},
		"maintenance-without-address": {
			Version: "v1.2.3", Stage: runtime.StageMaintenance, Links: link, Fingerprint: print, Wrong: []Problem{{"network", "the node has no address"}},
		},
		"disk-unknown": {
			Version: "v1.2.3", Stage: runtime.StageMaintenance, Hostname: "talos-a1b2c3", Addresses: address[:1], Fingerprint: print, Unsure: true,
			Wrong: []Problem{{runtime.DisksID, "it is not known whether this machine has a configuration: /dev/sda can't be read: input/output error"}},
		},
		"no-server": {
			Version: "v1.2.3", Stage: runtime.StageMaintenance, Ready: true, Hostname: "talos-a1b2c3", Addresses: address[:1], Fingerprint: print,
			Activity: []string{"asking http://10.5.0.1:8080/config.yaml?uuid=4c4c4544-0038-5610-8053-b7c04f4d4e32 for a configuration, 7 times by now"},
			Wrong:    []Problem{{"configuration-source", "the configuration server does not answer: Get \"http://10.5.0.1:8080/config.yaml?uuid=4c4c4544-0038-5610-8053-b7c04f4d4e32\": dial tcp 10.5.0.1:8080: connect: connection refused"}},
		},
		"installing": {
			Version: "v1.2.3", Stage: runtime.StageInstalling, Hostname: "cp-1", Addresses: address[:1], Type: cluster.TypeControlPlane,
			Activity: []string{"installing to /dev/vda (10 GB, virtio, serial disk0): empty", "ROOT-A: 120 of 192 MB"},
		},
		"sick": {
			Version: "v1.2.3", Stage: runtime.StageBooting, Hostname: "cp-1", Addresses: address, Type: cluster.TypeControlPlane, Node: &Node{Name: "cp-1", Cordoned: true},
			Wrong: []Problem{
				{"nodeReady", "the Kubernetes node is not Ready"}, {"services", "etcd is not healthy: context deadline exceeded"}, {"time", "time is not in sync"},
			},
			Recent: recents(20),
		},
		"running":      {Version: "v1.2.3", Stage: runtime.StageRunning, Ready: true, Hostname: "worker-1", Addresses: address, Type: cluster.TypeWorker, Node: &Node{Name: "worker-1", Ready: true}},
		"shuttingdown": {Version: "v1.2.3", Stage: runtime.StageShuttingDown, Hostname: "worker-1", Addresses: address, Type: cluster.TypeWorker, Node: &Node{Name: "worker-1", Ready: true}, Activity: []string{"stopping services"}},
		"hostile": {
			Version: "v1.2.3", Stage: runtime.StageMaintenance, Hostname: "a\x1b[2J\x1b]0;title\ab", Addresses: address[:1], Fingerprint: print,
			Wrong:  []Problem{{"x\x9b31m", "red\nnext \u202eline\u0301 " + strings.Repeat("långt ", 60) + "\xff\x00"}},
			Recent: []Line{{noon, "a\rb", "\x1bc\u200b漢字"}},
		},
	}
}

func recents(n int) []Line {
	var out []Line
	for i := range n {
		out = append(out, Line{noon.Add(time.Duration(i) * time.Second), "etcd", fmt.Sprintf("waiting for a leader, attempt %d, %s", i, strings.Repeat("and on ", i))})
	}
	return out
}

// TestScreen compares with what a person has looked at; UPDATE=1 rewrites it.
func TestScreen(t *testing.T) {
	for name, s := range states() {
		for _, size := range []struct{ width, height int }{{80, 19}, {132, 38}} {
			lines := Screen(s, size.width, size.height)
			got := strings.Join(lines, "\n") + "\n"
			file := filepath.Join("testdata", "screen", fmt.Sprintf("%s-%dx%d.txt", name, size.width, size.height))
			if os.Getenv("UPDATE") != "" {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
			fits(t, file, lines, size.width, size.height)
		}
	}
}

// fits checks what holds for every screen.
func fits(t *testing.T, name string, lines []string, width, height int) {
	t.Helper()
	if len(lines) > height {
		t.Errorf("%s: %d lines, want %d at most", name, len(lines), height)
	}
	for _, l := range lines {
		if utf8.RuneCountInString(l) > width {
			t.Errorf("%s: line of %d characters, want %d at most: %q", name, utf8.RuneCountInString(l), width, l)
		}
		for _, r := range l {
			if r < ' ' || r >= 0x7f && r < 0xa1 || r > 0xff || r == 0xad {
				t.Errorf("%s: character %U in %q", name, r, l)
			}
		}
	}
}

// TestReport tells each change once, and nothing that stays.
func TestReport(t *testing.T) {
	all := states()
	for _, c := range []struct {
		name     string
		old, now State
		want     []string
	}{
		{"nothing changes", all["running"], all["running"], nil},
		{"logs go there by themselves", all["running"], func() State { s := all["running"]; s.Recent = recents(3); return s }(), nil},
		{"the first", State{}, all["booting"], []string{
			"Talos v1.2.3, booting", "address (none yet) eth0 52:54:00:12:34:56 connected, eth1 52:54:00:12:34:57 no carrier",
			"not as it should be: network: the node has no address", "not as it should be: services: networkd has not been checked yet",
		}},
		{"an address comes", all["booting"], all["maintenance"], []string{
			"Talos v1.2.3, maintenance", "host talos-a1b2c3", "address 10.5.0.9, fd00:10:5::9",
			"waits for its first configuration: talosctl apply-config --insecure -n 10.5.0.9 -f FILE --cert-fingerprint " + print,
			"as it should be again: network", "as it should be again: services",
		}},
		{"another reason", all["sick"], func() State {
			s := all["sick"]
			s.Wrong = []Problem{s.Wrong[0], {"services", "etcd is not running"}, s.Wrong[2]}
			return s
		}(), []string{"not as it should be: services: etcd is not running"}},
		{"down", all["running"], all["shuttingdown"], []string{"Talos v1.2.3, shutting down", "stopping services"}},
	} {
		if diff := cmp.Diff(c.want, Report(c.old, c.now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	for _, l := range Report(State{}, all["hostile"]) {
		fits(t, "hostile", []string{l}, 1<<16, 1)
	}
}

func TestConsoles(t *testing.T) {
	for text, want := range map[string]struct {
		screen bool
		serial []string
	}{
		"tty0 ttyS0\n":          {true, []string{"ttyS0"}},
		"ttyS1 ttyAMA0 hvc0":    {false, []string{"ttyS1", "ttyAMA0", "hvc0"}},
		"tty1":                  {true, nil},
		"":                      {false, nil},
		"../sda tty ttyS0/../x": {false, []string{"tty"}},
	} {
		screen, serial := consoles(text)
		if screen != want.screen || !cmp.Equal(serial, want.serial) {
			t.Errorf("consoles(%q) = %v, %q, want %v, %q", text, screen, serial, want.screen, want.serial)
		}
	}
}

// FuzzScreen: whatever comes from outside, it fits and is no command to a terminal.
func FuzzScreen(f *testing.F) {
	f.Add("host", "what", "why it is so", "log line", 80, 25)
	f.Add("\x1b[2J", "\x9b", strings.Repeat("long ", 100), "\xff\xfe", 20, 3)
	f.Fuzz(func(t *testing.T, host, what, why, line string, width, height int) {
		if width < 20 || width > 500 || height < 1 || height > 200 {
			return
		}
		s := State{Version: what, Hostname: host, Fingerprint: host, Wrong: []Problem{{what, why}}, Activity: []string{line}, Links: []Link{{what, why, false}}, Recent: []Line{{noon, what, line}}}
		fits(t, "screen", Screen(s, width, height), width, height)
		for _, l := range Report(State{}, s) {
			fits(t, "report", []string{l}, 1<<20, 1)
		}
	})
}
