package initramfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"talos/internal/linux/dm"
	"talos/internal/linux/loopdev"
	"talos/internal/verity"
)

func TestChecked(t *testing.T) {
	got := checked("/dev/vda2", verity.Param{Root: verity.Root{0xab}, Blocks: 3})
	want := dm.Target{Length: 24, Type: "verity", Params: "1 /dev/vda2 /dev/vda2 4096 4096 3 3 sha256 ab" + strings.Repeat("00", 31) + " -"}
	if got != want {
		t.Errorf("checked = %+v, want %+v", got, want)
	}
}

// TestCheckedByKernel: the kernel reads what was hashed, and of what was changed
// since, data or tree, nothing. Where it has no device mapper is a reason to
// skip, but for a virtual machine under our own kernel.
func TestCheckedByKernel(t *testing.T) {
	if _, err := os.Stat("/sys/class/misc/device-mapper"); errors.Is(err, fs.ErrNotExist) && os.Getenv("TALOS_IN_VM") != "1" {
		t.Skip("this kernel has no device mapper; runs under ours in a virtual machine")
	}
	const blocks = 300 // two levels of hashes
	data := make([]byte, blocks*verity.BlockSize)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	image := bytes.NewBuffer(bytes.Clone(data))
	param, err := verity.Build(bytes.NewReader(data), int64(len(data)), image)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		changed int64 // the byte that is, -1: none
		block   int64 // the one that can't be read then
	}{
		{"whole", -1, -1},
		{"data", 7*verity.BlockSize + 5, 7},
		{"tree", param.DataSize() + verity.BlockSize + 32*200, 200}, // behind the top is the first block of the level below
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := bytes.Clone(image.Bytes())
			if tt.changed >= 0 {
				bad[tt.changed] ^= 1
			}
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			device, keep, err := loopdev.Attach(file)
			if err != nil {
				t.Fatal(err)
			}
			defer keep.Close()
			path, err := dm.Create("initramfs-test", checked(device, param))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := dm.Remove("initramfs-test"); err != nil {
					t.Error(err)
				}
			}()
			root, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			got := make([]byte, verity.BlockSize)
			for i := range int64(blocks) {
				_, err := root.ReadAt(got, i*verity.BlockSize)
				switch {
				case i == tt.block && !errors.Is(err, unix.EIO):
					t.Errorf("block %d, which was changed = %v, want EIO", i, err)
				case tt.block < 0 && err != nil && !errors.Is(err, io.EOF):
					t.Fatalf("block %d: %v", i, err)
				case err == nil && !bytes.Equal(got, data[i*verity.BlockSize:(i+1)*verity.BlockSize]):
					t.Fatalf("block %d is not what was hashed", i)
				}
			}
		})
	}
}
