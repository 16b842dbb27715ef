package cri

import (
	"os"
	"testing"
)

// TestChooseSnapshotter: a folder that can't be written to has no overlayfs,
// and a probe leaves nothing behind.
func TestChooseSnapshotter(t *testing.T) {
	dir := t.TempDir()
	name, why := ChooseSnapshotter(dir)
	if (why == nil) != (name == "overlayfs") || (why != nil) != (name == "native") {
		t.Errorf("ChooseSnapshotter = %s, %v", name, why)
	}
	if os.Geteuid() == 0 && os.Getenv("REQUIRE_PRIV") == "1" && why != nil {
		t.Errorf("overlayfs on %s: %v", dir, why)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the probe left %v, %v", left, err)
	}
	if name, why := ChooseSnapshotter("/proc/nowhere"); name != "native" || why == nil {
		t.Errorf("ChooseSnapshotter(/proc/nowhere) = %s, %v, want native and a reason", name, why)
	}
}
