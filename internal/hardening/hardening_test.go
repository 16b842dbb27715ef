package hardening

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"talos/internal/cmdline"
)

func TestCheckCmdline(t *testing.T) {
	const rest = " init_on_alloc=1 proc_mem.force_override=never"
	const all = "slab_nomerge pti=on" + rest
	for _, tc := range []struct {
		line    string
		missing string // "" for none
	}{
		{"console=ttyS0 " + all + " talos.platform=metal", ""},
		{all + "\n", ""},
		{"\tpti=on\tslab-nomerge" + rest, ""},
		{`slab_nomerge "pti=on"` + rest, ""},
		{`slab_nomerge pti="on"` + rest, ""},
		{"pti=off " + all, ""},
		{"mitigations=auto,nosmt " + all, ""},
		{"mitigations=off " + all + " mitigations=auto", ""},
		{"", "slab_nomerge, pti=on, init_on_alloc=1, proc_mem.force_override=never"},
		{"slab_nomerge" + rest, "pti=on"},
		{"pti=on" + rest, "slab_nomerge"},
		{"slab_nomerge pti=auto" + rest, "pti=on"},
		{"slab_nomerge pti" + rest, "pti=on"},
		{all + " pti=off", "pti=on"},
		{all + " nopti", "pti=on"},
		{all + " slab_merge", "slab_nomerge"},
		{all + " init-on-alloc=0", "init_on_alloc=1"},
		{all + " proc_mem.force_override=ptrace", "proc_mem.force_override=never"},
		{"slab_nomerge=0 pti=on" + rest, "slab_nomerge"},
		{"xslab_nomerge pti=on" + rest, "slab_nomerge"},
		{`talos.config="http://x/? slab_nomerge pti=on"` + rest, "slab_nomerge, pti=on"},
		{"quiet" + rest + " -- slab_nomerge pti=on", "slab_nomerge, pti=on"},
	} {
		err := CheckCmdline(cmdline.Parse(tc.line))
		want := ""
		if tc.missing != "" {
			want = "the kernel command line lacks " + tc.missing
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("CheckCmdline(%q) = %q, want %q", tc.line, got, want)
		}
	}
	for _, line := range []string{all + " mitigations=off", "mitigations=off " + all} {
		if err := CheckCmdline(cmdline.Parse(line)); err == nil || !strings.Contains(err.Error(), "has mitigations=off") {
			t.Errorf("CheckCmdline(%q) = %v, want an error", line, err)
		}
	}
}

// FuzzCheckCmdline: whatever else is on a command line, arguments in front of
// "--" and outside of quotes decide, the last of them.
func FuzzCheckCmdline(f *testing.F) {
	f.Add("console=tty0 pti=off")
	f.Add(`a="b c" -- d`)
	f.Add("pti=on slab_nomerge nopti\n")
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Count(line, `"`)%2 != 0 || strings.Contains(line, "--") {
			return
		}
		if err := CheckCmdline(cmdline.Parse(line + " slab_nomerge pti=on init_on_alloc=1 proc_mem.force_override=never mitigations=auto")); err != nil {
			t.Errorf("with everything added to %q: %v", line, err)
		}
		if err := CheckCmdline(cmdline.Parse(line + " nopti slab_merge")); err == nil || !strings.Contains(err.Error(), "slab_nomerge, pti=on") {
			t.Errorf("with everything taken back after %q: %v", line, err)
		}
	})
}

// procSys makes a tree with every sysctl of the tables, and two links.
func procSys(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, s := range append(Enforced(), Tuned()...) {
		for _, link := range []string{"all", "default", "lan.100"} {
			put(t, root, strings.ReplaceAll(strings.ReplaceAll(s.Name, ".", "/"), "*", link), "17\n")
		}
	}
	return root
}

func put(t *testing.T, root, name, value string) {
	t.Helper()
	name = filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, root, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestApplySetsAll(t *testing.T) {
	root := procSys(t)
	if err := Apply(root); err != nil {
		t.Errorf("Apply: %v", err)
	}
	if got := get(t, root, "net/ipv4/ip_forward"); got != "17\n" {
		t.Errorf("Apply set ip_forward to %q, which is for Defaults", got)
	}
	if err := Defaults(root); err != nil {
		t.Errorf("Defaults: %v", err)
	}
	for name, want := range map[string]string{
		"kernel/kptr_restrict":                 "2",
		"user/max_user_namespaces":             "0",
		"net/ipv4/ip_forward":                  "1",
		"net/ipv6/conf/all/accept_ra":          "2",
		"net/ipv6/conf/lan.100/accept_ra":      "2",
		"net/ipv4/conf/lan.100/send_redirects": "0",
		"net/bridge/bridge-nf-call-iptables":   "1",
	} {
		if got := get(t, root, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// TestApplyNamesWhatItCannotSet: a kernel without a setting, one that refuses,
// and one that takes a value and keeps its own.
func TestApplyNamesWhatItCannotSet(t *testing.T) {
	root := procSys(t)
	for _, name := range []string{"kernel/dmesg_restrict", "kernel/kptr_restrict", "vm/unprivileged_userfaultfd"} {
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "kernel/kptr_restrict"), 0o755); err != nil { // can't be opened for writing
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "fs/suid_dumpable")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", filepath.Join(root, "fs/suid_dumpable")); err != nil { // reads back nothing
		t.Fatal(err)
	}
	err := Apply(root)
	if err == nil {
		t.Fatal("Apply succeeded")
	}
	for _, want := range []string{
		"set kernel.dmesg_restrict to 1: open " + root + "/kernel/dmesg_restrict: no such file or directory",
		"set kernel.kptr_restrict to 2: open " + root + "/kernel/kptr_restrict: is a directory",
		`set fs.suid_dumpable to 0: read back ` + root + `/fs/suid_dumpable: it is ""`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Apply = %v\nlacks %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "userfaultfd") {
		t.Errorf("Apply = %v, and a kernel may lack userfaultfd", err)
	}
	if n := strings.Count(err.Error(), "set "); n != 3 {
		t.Errorf("Apply names %d settings, want 3: %v", n, err)
	}
	if got := get(t, root, "kernel/yama/ptrace_scope"); got[0] != '2' {
		t.Errorf("what comes after a failure was not set: %q", got)
	}
}

// TestDefaultsWithoutIPv6: a machine that was started with ipv6.disable=1.
func TestDefaultsWithoutIPv6(t *testing.T) {
	root := procSys(t)
	if err := os.RemoveAll(filepath.Join(root, "net/ipv6")); err != nil {
		t.Fatal(err)
	}
	if err := Defaults(root); err != nil {
		t.Errorf("Defaults: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "net/ipv4/conf")); err != nil {
		t.Fatal(err)
	}
	if err := Defaults(root); err == nil || !strings.Contains(err.Error(), "net.ipv4.conf.*.send_redirects") {
		t.Errorf("without net.ipv4.conf, Defaults = %v", err)
	}
}

func TestTablesAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range append(Enforced(), Tuned()...) {
		if s.Name == "" || s.Value == "" || s.Why == "" {
			t.Errorf("%+v lacks a name, a value or a reason", s)
		}
		if seen[s.Name] {
			t.Errorf("%s is there twice", s.Name)
		}
		seen[s.Name] = true
	}
	for _, a := range Args() {
		if a.Name == "" || a.Why == "" {
			t.Errorf("%+v lacks a name or a reason", a)
		}
	}
}
