package hardware

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/google/go-cmp/cmp"

	"talos/internal/linux/sysfs/recorded"
	"talos/internal/resources/hardware"
)

// tables are those of a virtual machine whose maker, processor and memory were
// given on QEMU's command line.
func tables(t testing.TB) (entry, table []byte) {
	t.Helper()
	for name, to := range map[string]*[]byte{"smbios_entry_point": &entry, "DMI": &table} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		*to = data
	}
	return entry, table
}

func TestParseSMBIOS(t *testing.T) {
	got, err := ParseSMBIOS(tables(t))
	if err != nil {
		t.Fatal(err)
	}
	want := SMBIOS{
		System: hardware.SystemInformationSpec{
			Manufacturer: "Example", ProductName: "Model X", Version: "1.0", BIOSVersion: "1.16.2-debian-1.16.2-1", SerialNumber: "SER-1",
			UUID: "11223344-5566-7788-99aa-bbccddeeff00", WakeUpType: "Power Switch", SKUNumber: "SKU7",
		},
		Processors: []hardware.ProcessorSpec{{
			Socket: "CPU 0", Manufacturer: "Intel", ProductName: "Some CPU", MaxSpeedMhz: 2000, BootSpeedMhz: 2000, Status: 65, SerialNumber: "CS1", AssetTag: "A1", PartNumber: "P1",
			CoreCount: 2, CoreEnabled: 2, ThreadCount: 2,
		}},
		Memory: []hardware.MemoryModuleSpec{{
			SizeMiB: 1024, DeviceLocator: "DIMM 0", BankLocator: "B0", Speed: 3200, Manufacturer: "Samsung", SerialNumber: "MS1", AssetTag: "MA1", ProductName: "M393",
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseSMBIOS (-want +got):\n%s", diff)
	}
}

// entry26 is an entry point of version 2.6, whose table is at hand.
const entry26 = "_SM_\x00\x1f\x02\x06"

// table of structures: each is its bytes from the type on, without the handle
// and the length, and its strings.
func table(structures ...[]string) []byte {
	var out []byte
	for _, s := range structures {
		out = append(out, s[0][0], byte(len(s[0])+3), 0, 0)
		out = append(out, s[0][1:]...)
		for _, text := range s[1:] {
			out = append(append(out, text...), 0)
		}
		if len(s) == 1 {
			out = append(out, 0)
		}
		out = append(out, 0)
	}
	return out
}

// TestFields: what does not fit into the old fields, and what nobody filled in.
func TestFields(t *testing.T) {
	zero := strings.Repeat("\x00", 100)
	cpu := "\x04" + zero[:31] + "\xff\xff\xff" + zero[:4] + "\x80\x01\x40\x01\x00\x03" // 384 cores, 320 enabled, 768 threads
	large := "\x11" + zero[:8] + "\xff\x7f" + zero[:14] + "\x00\x00\x20\x00"           // 2 TiB
	kib := "\x11" + zero[:8] + "\x00\x90" + zero[:14]                                  // 4096 KiB
	unknown := "\x11" + zero[:8] + "\xff\xff" + zero[:14]
	fast := "\x11" + zero[:17] + "\xff\xff" + zero[:61] + "\x00\x19\x00\x00"
	id := "\x01\x01\x02\x03\x04" + "\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff" + "\x63\x00\x00"
	got, err := ParseSMBIOS([]byte(entry26), table(
		[]string{id, "Default string", "  Board\x1b[2J \xff", "To Be Filled By O.E.M."}, []string{cpu}, []string{large}, []string{kib}, []string{unknown}, []string{fast},
		[]string{"\x7f"}, []string{"\x01\x01\x01\x01\x01", "after the end"}))
	if err != nil {
		t.Fatal(err)
	}
	want := SMBIOS{
		System:     hardware.SystemInformationSpec{ProductName: "Board[2J", UUID: "00112233-4455-6677-8899-aabbccddeeff"},
		Processors: []hardware.ProcessorSpec{{CoreCount: 384, CoreEnabled: 320, ThreadCount: 768}},
		Memory:     []hardware.MemoryModuleSpec{{SizeMiB: 2 << 20}, {SizeMiB: 4}, {}, {Speed: 6400}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseSMBIOS (-want +got):\n%s", diff)
	}
	old, err := ParseSMBIOS([]byte("_SM_\x00\x1f\x02\x05"), table([]string{id}))
	if err != nil || old.System.UUID != "33221100-5544-7766-8899-aabbccddeeff" {
		t.Errorf("version 2.5: %q, %v, want the id as it is", old.System.UUID, err)
	}
	for _, none := range []string{"\x00", "\xff"} {
		got, err := ParseSMBIOS([]byte(entry26), table([]string{"\x01\x00\x00\x00\x00" + strings.Repeat(none, 16) + "\x06\x00\x00"}))
		if err != nil || got.System.UUID != "" {
			t.Errorf("an id of %q: %q, %v, want none", none, got.System.UUID, err)
		}
	}
}

func TestNoSMBIOS(t *testing.T) {
	if _, err := ReadSMBIOS(t.TempDir()); !errors.Is(err, ErrNoSMBIOS) {
		t.Errorf("ReadSMBIOS of nothing = %v, want ErrNoSMBIOS", err)
	}
	if _, err := ParseSMBIOS([]byte("_DMI_"), nil); err == nil {
		t.Error("ParseSMBIOS of another table succeeded")
	}
}

func TestPCI(t *testing.T) {
	got, err := PCI(recorded.Lay(t, recorded.Machine))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[resource.ID]hardware.PCIDeviceSpec{
		"0000:00:03.0": {Class: "Mass storage controller", Subclass: "Non-Volatile memory controller", Vendor: "Red Hat", ClassID: "0x01", SubclassID: "0x08", VendorID: "0x1b36", ProductID: "0x0010", Driver: "nvme"},
		"0000:00:08.0": {Class: "Network controller", Subclass: "Ethernet controller", Vendor: "Intel", ClassID: "0x02", SubclassID: "0x00", VendorID: "0x8086", ProductID: "0x100e", Driver: "e1000"},
		"0000:00:1f.3": {Class: "Serial bus controller", Subclass: "SMBus", Vendor: "Intel", ClassID: "0x0c", SubclassID: "0x05", VendorID: "0x8086", ProductID: "0x2930"},
	} {
		if diff := cmp.Diff(want, got[id]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
	if len(got) != 19 {
		t.Errorf("%d devices, want 19", len(got))
	}
}

func TestByName(t *testing.T) {
	got := byName([]string{"DIMM 0", "DIMM 0", ""}, func(s string) string { return s })
	want := map[resource.ID]string{"DIMM-0": "DIMM 0", "DIMM-0#1": "DIMM 0", "#2": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("byName (-want +got):\n%s", diff)
	}
}

func FuzzParseSMBIOS(f *testing.F) {
	entry, data := tables(f)
	f.Add(entry, data)
	f.Add([]byte(entry26), table([]string{"\x11" + strings.Repeat("\x01", 30), "a", "b"}))
	f.Fuzz(func(t *testing.T, entry, table []byte) {
		got, err := ParseSMBIOS(entry, table)
		if err != nil {
			return
		}
		for _, m := range got.Memory {
			if !utf8.ValidString(m.ProductName) || len(m.ProductName) > 256 {
				t.Errorf("a name of %q", m.ProductName)
			}
		}
		if len(got.Memory)+len(got.Processors) > maxStructures {
			t.Errorf("%d modules", len(got.Memory))
		}
	})
}
