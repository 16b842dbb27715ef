package install

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	const base = "talos.platform=metal console=tty0 console=ttyS0 panic=10 quiet talos.root=x"
	for _, tt := range []struct{ extra, want string }{
		{"", base},
		{"net.ifnames=0", base + " net.ifnames=0"},
		{"console=ttyS1", base + " console=ttyS1"},
		{"talos.platform=nocloud", "console=tty0 console=ttyS0 panic=10 quiet talos.root=x talos.platform=nocloud"},
		{"panic=0 quiet", "talos.platform=metal console=tty0 console=ttyS0 talos.root=x panic=0 quiet"},
		{"-console", "talos.platform=metal panic=10 quiet talos.root=x"},
		{"-console=tty0 -quiet -none", "talos.platform=metal console=ttyS0 panic=10 talos.root=x"},
	} {
		if got, err := Arguments(base, strings.Fields(tt.extra)); got != tt.want || err != nil {
			t.Errorf("Arguments(%q) = %q, %v, want %q", tt.extra, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "a b", "talos.root=y", "-talos.root", "-", "a\nb"} {
		if got, err := Arguments(base, []string{bad}); err == nil {
			t.Errorf("Arguments(%q) = %q, want an error", bad, got)
		}
	}
}

// TestArgumentsStart: no arguments make a system that does not start.
func TestArgumentsStart(t *testing.T) {
	const base = "slab_nomerge pti=on init_on_alloc=1 proc_mem.force_override=never talos.root=x"
	for _, tt := range []struct{ extra, want string }{
		{"quiet", ""}, {"-none", ""}, {"talos.experimental.wipe=system", "empty the disk at every start"},
		{"-pti", "lacks pti=on, without which"}, {"pti=off", "lacks pti=on"}, {"nopti", "lacks pti=on"}, {"mitigations=off", "has mitigations=off"}, {"-slab_nomerge slub_merge", "lacks slab_nomerge"},
		{"x=" + strings.Repeat("y", maxCmdline-len(base)-3), ""},
		{"x=" + strings.Repeat("y", maxCmdline-len(base)-2), "would have 2048 bytes"},
	} {
		_, err := Arguments(base, strings.Fields(tt.extra))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Arguments(%.20q) = %v, want %q", tt.extra, err, tt.want)
		}
	}
	dir := source(t, "v1")
	if err := CheckArguments(dir, []string{"quiet"}); err != nil {
		t.Error(err)
	}
	if err := CheckArguments(dir, []string{"talos.root=y"}); err == nil || !strings.Contains(err.Error(), "belongs to the kernel image") {
		t.Errorf("CheckArguments = %v", err)
	}
	if err := CheckArguments(t.TempDir(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("CheckArguments without a source = %v", err)
	}
}
