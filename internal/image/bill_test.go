package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestKernelFiles: what goes with the kernel is in the tree, and none of it
// passes for a file of this machine's packages.
func TestKernelFiles(t *testing.T) {
	k := KernelFiles(t.TempDir())
	for _, name := range []string{"modules.builtin", "firmware/maker/chip.fw"} {
		if err := os.MkdirAll(filepath.Dir(k.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(k.path(name), []byte("kernel/drivers/net/dummy.ko\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree := new(Tree)
	addKernel(tree, k)
	if tree.err != nil {
		t.Fatal(tree.err)
	}
	for _, want := range []string{"usr/lib/modules/modules.builtin", "usr/lib/firmware/maker/chip.fw"} {
		if !slices.Contains(tree.paths(), want) {
			t.Errorf("paths = %v, want %s among them", tree.paths(), want)
		}
	}
	if got := tree.sources(k); len(got) != 0 {
		t.Errorf("sources = %v, want none", got)
	}
	tree = new(Tree)
	if addKernel(tree, KernelFiles(t.TempDir())); tree.WriteTar(nil) == nil {
		t.Error("a kernel that was not built makes no error")
	}
}
