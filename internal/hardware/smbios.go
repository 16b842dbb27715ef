package hardware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/linux/sysfs"
	"talos/internal/resources/hardware"
)

// SMBIOS is what firmware tells of the machine (DSP0134). Fields that it leaves
// out are empty, as are those that its maker forgot to fill in.
type SMBIOS struct {
	System     hardware.SystemInformationSpec
	Processors []hardware.ProcessorSpec
	Memory     []hardware.MemoryModuleSpec
}

// Bounds: a table is at the most 64 KiB in version 2, and not much more in 3.
const (
	maxTable      = 1 << 20
	maxStructures = 4096
)

// ErrNoSMBIOS says that the firmware has no such tables.
var ErrNoSMBIOS = errors.New("no SMBIOS tables")

// ReadSMBIOS reads the tables that the kernel found. root is where sys is.
func ReadSMBIOS(root string) (SMBIOS, error) {
	dir := filepath.Join(root, "sys/firmware/dmi/tables")
	entry, err := os.ReadFile(filepath.Join(dir, "smbios_entry_point"))
	if errors.Is(err, fs.ErrNotExist) {
		return SMBIOS{}, ErrNoSMBIOS
	}
	if err != nil {
		return SMBIOS{}, fmt.Errorf("SMBIOS: %w", err)
	}
	table, err := os.ReadFile(filepath.Join(dir, "DMI"))
	if err != nil {
		return SMBIOS{}, fmt.Errorf("SMBIOS: %w", err)
	}
	return ParseSMBIOS(entry, table)
}

// version is that of the entry point, which decides how ids are written.
func version(entry []byte) (major, minor byte, ok bool) {
	switch {
	case len(entry) >= 9 && string(entry[:5]) == "_SM3_":
		return entry[7], entry[8], true
	case len(entry) >= 8 && string(entry[:4]) == "_SM_":
		return entry[6], entry[7], true
	}
	return 0, 0, false
}

// structure is one entry of the table: its fixed part from the type on, and the
// strings that this refers to by number.
type structure struct {
	fixed   []byte
	strings [][]byte
}

// ParseSMBIOS reads the table. A structure that is cut short ends it.
func ParseSMBIOS(entry, table []byte) (SMBIOS, error) {
	major, minor, ok := version(entry)
	if !ok {
		return SMBIOS{}, fmt.Errorf("SMBIOS: entry point of %d bytes is none", len(entry))
	}
	if len(table) > maxTable {
		return SMBIOS{}, fmt.Errorf("SMBIOS: table of %d bytes", len(table))
	}
	var out SMBIOS
	for range maxStructures {
		s, rest, ok := next(table)
		if !ok {
			break
		}
		table = rest
		switch s.fixed[0] {
		case 0:
			out.System.BIOSVersion = s.text(5)
		case 1:
			out.system(s, major > 2 || major == 2 && minor >= 6)
		case 4:
			out.Processors = append(out.Processors, processor(s))
		case 17:
			out.Memory = append(out.Memory, memory(s))
		case 127: // the end
			return out, nil
		}
	}
	return out, nil
}

// next splits the first structure off. Its strings are ended by a NUL each, and
// by one more.
func next(b []byte) (s structure, rest []byte, ok bool) {
	if len(b) < 4 || b[1] < 4 || len(b) < int(b[1]) {
		return s, nil, false
	}
	s.fixed, b = b[:b[1]], b[b[1]:]
	end := bytes.Index(b, []byte{0, 0})
	if end < 0 {
		return s, nil, false
	}
	if end > 0 {
		s.strings = bytes.Split(b[:end], []byte{0})
	}
	return s, b[end+2:], true
}

// unfilled are what makers forget to replace.
var unfilled = map[string]bool{
	"to be filled by o.e.m.": true, "to be filled by o.e.m": true, "default string": true, "not specified": true, "system serial number": true, "system product name": true,
	"system manufacturer": true, "system version": true, "o.e.m.": true, "unknown": true, "none": true, "no dimm": true, "not provided": true,
}

func (s structure) text(at int) string {
	n := int(s.byte(at))
	if n == 0 || n > len(s.strings) {
		return ""
	}
	text := sysfs.Text(s.strings[n-1])
	if unfilled[strings.ToLower(text)] {
		return ""
	}
	return text
}

func (s structure) byte(at int) byte {
	if at >= len(s.fixed) {
		return 0
	}
	return s.fixed[at]
}

func (s structure) word(at int) uint32 {
	if at+2 > len(s.fixed) {
		return 0
	}
	return uint32(binary.LittleEndian.Uint16(s.fixed[at:]))
}

func (s structure) double(at int) uint32 {
	if at+4 > len(s.fixed) {
		return 0
	}
	return binary.LittleEndian.Uint32(s.fixed[at:])
}

// wakeUps are the reasons why a machine is on (7.2.2).
var wakeUps = []string{"Reserved", "Other", "Unknown", "APM Timer", "Modem Ring", "LAN Remote", "Power Switch", "PCI PME#", "AC Power Restored"}

// system is type 1.
func (m *SMBIOS) system(s structure, littleEndian bool) {
	m.System.Manufacturer, m.System.ProductName, m.System.Version, m.System.SerialNumber = s.text(4), s.text(5), s.text(6), s.text(7)
	m.System.SKUNumber = s.text(25)
	if len(s.fixed) > 24 {
		m.System.UUID = systemUUID(s.fixed[8:24], littleEndian)
		if n := int(s.fixed[24]); n < len(wakeUps) {
			m.System.WakeUpType = wakeUps[n]
		}
	}
}

// systemUUID is the machine's id. All zeros and all ones say that it has none.
// Before version 2.6 its first three fields were big-endian.
func systemUUID(b []byte, littleEndian bool) string {
	if bytes.Equal(b, make([]byte, 16)) || bytes.Equal(b, bytes.Repeat([]byte{0xff}, 16)) {
		return ""
	}
	if littleEndian {
		b = []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// processor is type 4. Numbers of cores above 254 are further behind.
func processor(s structure) hardware.ProcessorSpec {
	count := func(small, large int) uint32 {
		if n := s.byte(small); n != 0xff {
			return uint32(n)
		}
		return s.word(large)
	}
	return hardware.ProcessorSpec{
		Socket: s.text(4), Manufacturer: s.text(7), ProductName: s.text(16),
		MaxSpeedMhz: s.word(20), BootSpeedMhz: s.word(22), Status: uint32(s.byte(24)),
		SerialNumber: s.text(32), AssetTag: s.text(33), PartNumber: s.text(34),
		CoreCount: count(35, 42), CoreEnabled: count(36, 44), ThreadCount: count(37, 46),
	}
}

// memory is type 17. What does not fit into a field's 15 or 16 bits is further
// behind.
func memory(s structure) hardware.MemoryModuleSpec {
	m := hardware.MemoryModuleSpec{
		DeviceLocator: s.text(16), BankLocator: s.text(17), Manufacturer: s.text(23), SerialNumber: s.text(24), AssetTag: s.text(25), ProductName: s.text(26),
	}
	switch size := s.word(12); {
	case size == 0xffff: // not known
	case size == 0x7fff:
		m.SizeMiB = s.double(28) &^ (1 << 31)
	case size&0x8000 != 0:
		m.SizeMiB = (size &^ 0x8000) / 1024
	default:
		m.SizeMiB = size
	}
	if m.Speed = s.word(21); m.Speed == 0xffff {
		m.Speed = s.double(84) &^ (1 << 31)
	}
	return m
}
