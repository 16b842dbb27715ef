package dm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"talos/internal/linux/loopdev"
)

// TestLayout: the kernel's structures are 312 and 40 bytes long.
func TestLayout(t *testing.T) {
	if got := binary.Size(header{}); got != headerSize || unsafe.Sizeof(header{}) != headerSize {
		t.Errorf("header is %d bytes, want %d", got, headerSize)
	}
	if got := binary.Size(spec{}); got != specSize {
		t.Errorf("spec is %d bytes, want %d", got, specSize)
	}
}

func TestRequest(t *testing.T) {
	buf, err := request("root", flagReadOnly, []Target{{Length: 8, Type: "zero"}, {Start: 8, Length: 16, Type: "error", Params: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(buf) != bufferSize {
		t.Errorf("request is %d bytes, want %d", len(buf), bufferSize)
	}
	second := headerSize + int(binary.NativeEndian.Uint32(buf[headerSize+20:]))
	if second%8 != 0 {
		t.Errorf("the second target begins at %d, want a multiple of 8", second)
	}
	if got := string(buf[second+24 : second+29]); got != "error" {
		t.Errorf("type of the second target = %q, want error", got)
	}
	if got := buf[second+specSize]; got != 'x' {
		t.Errorf("parameters of the second target begin with %q, want x", got)
	}
}

func TestRequestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		device string
		table  Target
	}{
		"no name":         {"", Target{}},
		"long name":       {strings.Repeat("x", nameLength), Target{}},
		"long type":       {"x", Target{Type: strings.Repeat("x", 16)}},
		"long parameters": {"x", Target{Params: strings.Repeat("x", bufferSize)}},
	} {
		if _, err := request(c.device, 0, []Target{c.table}); err == nil {
			t.Errorf("%s: request = nil error", name)
		}
	}
}

// TestTargets: an answer of two targets is read, and none that is cut short.
func TestTargets(t *testing.T) {
	want := []Target{{Length: 8, Type: "verity", Params: "1 7:0 7:0"}, {Start: 8, Length: 16, Type: "zero"}}
	answer, err := request("root", flagReadOnly, want)
	if err != nil {
		t.Fatal(err)
	}
	// The second spec counts from its own start in a request; in an answer that
	// matters to nobody, for it is the last.
	if got, err := targets(answer); err != nil || !slices.Equal(got, want) {
		t.Errorf("targets = %+v, %v, want %+v", got, err, want)
	}
	for _, n := range []int{0, headerSize, headerSize + specSize, headerSize + specSize + 20} {
		if got, err := targets(answer[:n]); err == nil {
			t.Errorf("targets of the first %d bytes = %+v, want an error", n, got)
		}
	}
	binary.NativeEndian.PutUint32(answer[headerSize+20:], bufferSize)
	if got, err := targets(answer); err == nil {
		t.Errorf("targets whose second is outside = %+v, want an error", got)
	}
}

// TestCreate makes a device where the kernel has the device mapper.
func TestCreate(t *testing.T) {
	control, err := openControl()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) { // the node may be there without the driver
		if os.Getenv("TALOS_IN_VM") == "1" {
			t.Fatalf("%s is not there, and this is our kernel", Control)
		}
		t.Skip("this kernel has no device mapper; runs under ours in a virtual machine")
	}
	if err != nil {
		t.Fatal(err)
	}
	control.Close()
	want := make([]byte, 8*SectorSize)
	for i := range want {
		want[i] = byte(i / SectorSize)
	}
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	device, keep, err := loopdev.Attach(file)
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	const name = "talos-dm-test"
	path, err := Create(name, Target{Length: 6, Type: "linear", Params: device + " 0"}, Target{Start: 6, Length: 2, Type: "linear", Params: device + " 2"})
	if err != nil {
		t.Fatal(err)
	}
	want = slices.Concat(want[:6*SectorSize], want[2*SectorSize:4*SectorSize])
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, want) {
		t.Errorf("read %d bytes, %v, want %d of the file's", len(data), err, len(want))
	}
	var backing unix.Stat_t
	if err := unix.Stat(device, &backing); err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(backing.Rdev), unix.Minor(backing.Rdev))
	for what, look := range map[string]func(string) ([]Target, error){"Table": Table, "Status": Status} {
		parts := []Target{{Length: 6, Type: "linear", Params: number + " 0"}, {Start: 6, Length: 2, Type: "linear", Params: number + " 2"}}
		if what == "Status" { // linear says nothing of its state
			parts[0].Params, parts[1].Params = "", ""
		}
		if got, err := look(name); err != nil || !slices.Equal(got, parts) {
			t.Errorf("%s = %+v, %v, want %+v", what, got, err, parts)
		}
	}
	if err := os.WriteFile(path, []byte("x"), 0); err == nil {
		t.Error("a read-only device takes writes")
	}
	if err := Remove(name); err != nil {
		t.Error(err)
	}
	if _, err := Create(name, Target{Length: 8, Type: "nonsense"}); err == nil {
		t.Error("Create with a type that does not exist = nil")
	}
	if err := Remove(name); err == nil {
		t.Error("a device that could not be made is there")
	}
}
