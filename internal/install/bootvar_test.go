package install

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/gpt/powercut"
)

// TestLoadOption: the bytes are laid out as UEFI 2.10 says in 3.1.3, 10.3.5.1 and
// 10.3.5.4, by hand.
func TestLoadOption(t *testing.T) {
	p := gpt.Partition{Number: 1, ID: uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"), Offset: 1 << 20, Size: 256 << 20}
	want := "01000000" + // active
		"7400" + // length of the path
		"540061006c006f0073000000" + // Talos
		"04012a00" + "01000000" + "0008000000000000" + "0000080000000000" + // partition 1, 2048, 524288 sectors
		"33221100554477668899aabbccddeeff" + "0202" +
		"04044600" + hex.EncodeToString(ucs2(`\EFI\systemd\systemd-bootx64.efi`)) +
		"7fff0400"
	if diff := cmp.Diff(want, hex.EncodeToString(loadOption(p, 512))); diff != "" {
		t.Errorf("loadOption (-want +got):\n%s", diff)
	}
	if got := title(loadOption(p, 512)); got != "Talos" {
		t.Errorf("title = %q", got)
	}
	if large := loadOption(p, 4096); binary.LittleEndian.Uint64(large[18+8:]) != 256 {
		t.Errorf("with sectors of 4096 the partition begins at %d, want 256", binary.LittleEndian.Uint64(large[18+8:]))
	}
}

func TestRegisterBoot(t *testing.T) {
	vars := t.TempDir()
	v := efivars(vars)
	for name, value := range map[string]string{
		"Boot0000": "\x01\x00\x00\x00\x00\x00U\x00i\x00\x00\x00", "Boot0001": "\x01", "BootOrder": "\x01\x00\x00\x00",
	} {
		if err := v.write(name, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(vars, "BootXYZ-"+globalGUID), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := powercut.New(3*gib, 512)
	if err := RegisterBoot(vars, d); err == nil {
		t.Error("RegisterBoot of an empty disk succeeded")
	}
	s := open(t, source(t, "v1"))
	for pass := range 2 {
		if err := Write(t.Context(), d, s, Options{}); err != nil { // other ids
			t.Fatal(err)
		}
		if err := RegisterBoot(vars, d); err != nil {
			t.Fatal(err)
		}
		esp, err := Place(d, EFILabel)
		if err != nil {
			t.Fatal(err)
		}
		option, err := v.read("Boot0002")
		if err != nil || !bytes.Contains(option, guidBytes(esp.ID)) {
			t.Errorf("pass %d: Boot0002 = % x, %v, want it to name the partition", pass, option, err)
		}
		if order, err := v.read("BootOrder"); string(order) != "\x02\x00\x01\x00\x00\x00" || err != nil {
			t.Errorf("pass %d: BootOrder = % x, %v", pass, order, err)
		}
	}
	list, err := filepath.Glob(filepath.Join(vars, "Boot000*"))
	if err != nil || len(list) != 3 {
		t.Errorf("entries = %q, %v, want one more than at first", list, err)
	}
	if raw, err := os.ReadFile(v.path("Boot0002")); err != nil || !strings.HasPrefix(string(raw), "\x07\x00\x00\x00\x01\x00\x00\x00") {
		t.Errorf("Boot0002 = % x, %v, want the attributes first", raw, err)
	}
	if err := RegisterBoot(filepath.Join(vars, "none"), d); err == nil {
		t.Error("RegisterBoot without variables succeeded")
	}
}

// FuzzBootOrder: whatever the firmware has there, ours is the first, once, and
// the others keep their order.
func FuzzBootOrder(f *testing.F) {
	f.Add(uint16(2), []byte("\x01\x00\x02\x00"), []byte("\x01\x00\x00\x00\x10\x00T\x00\x00\x00"))
	f.Add(uint16(0), []byte("\x00"), []byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, number uint16, order, option []byte) {
		_ = title(option) // must not panic
		got := first(number, order)
		if binary.LittleEndian.Uint16(got) != number || len(got) > len(order)+2 {
			t.Errorf("first(%d, % x) = % x", number, order, got)
		}
		if again := first(number, got); !bytes.Equal(got, again) {
			t.Errorf("first again = % x, then % x", got, again)
		}
	})
}

// TestBootPartition: the medium that the system came from is known by its
// partition, and is no place to install on.
func TestBootPartition(t *testing.T) {
	vars := t.TempDir()
	if got := BootPartition(vars); got != "" {
		t.Errorf("BootPartition without the variable = %q", got)
	}
	file := filepath.Join(t.TempDir(), "stick")
	d, err := gpt.Create(file, 3*gib, 512)
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.New(d, uuid.Nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := table.Add("boot", gpt.TypeEFI, uuid.Nil, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(table.Write(), d.Close()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(vars, "LoaderDevicePartUUID-"+loaderGUID)
	if err := os.WriteFile(name, append([]byte{6, 0, 0, 0}, ucs2(strings.ToUpper(p.ID.String()))...), 0o600); err != nil {
		t.Fatal(err)
	}
	id := BootPartition(vars)
	if id != p.ID.String() {
		t.Errorf("BootPartition = %q, want %s", id, p.ID)
	}
	stick := disk.Disk{DevPath: file, Transport: "usb", Size: 3 * gib, SectorSize: 512}
	for boot, want := range map[string]bool{id: true, "": false, uuid.NewString(): false} {
		got := Survey(t.Context(), []disk.Disk{stick}, boot)
		if len(got) != 1 || got[0].Boot != want || len(got[0].Found) != 1 {
			t.Errorf("Survey with %q = %+v, want Boot = %t", boot, got, want)
		}
	}
	_, err = MakePlan(Survey(t.Context(), []disk.Disk{stick}, id), Request{Disk: file, Wipe: true})
	if err == nil || !strings.Contains(err.Error(), "is what this system was started from") {
		t.Errorf("MakePlan on the medium = %v", err)
	}
}
