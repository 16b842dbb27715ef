package install

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"talos/internal/gpt"
)

// EFIVars is where the kernel shows the firmware's variables.
const EFIVars = "/sys/firmware/efi/efivars"

// bootTitle is what the firmware's menu calls us.
const bootTitle = "Talos"

const (
	globalGUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	// attributes: non-volatile, boot service access, runtime access.
	attributes = 7
	loadActive = 1
	immutable  = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
)

// RegisterBoot tells the firmware of an installed disk: an entry of its menu,
// before all others. It is a help only: what it says, firmware finds on its own
// as \EFI\BOOT\BOOTX64.EFI on most machines, so its error is to be told and not
// to stop anything. vars is EFIVars.
func RegisterBoot(vars string, d gpt.Device) error {
	p, err := Place(d, EFILabel)
	if err != nil {
		return fmt.Errorf("boot entry of the firmware: %w", err)
	}
	v := efivars(vars)
	if err := v.register(loadOption(p, d.SectorSize())); err != nil {
		return fmt.Errorf("boot entry of the firmware: %w", err)
	}
	return nil
}

// loaderGUID is of the variables that systemd's loader and stub set.
const loaderGUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// BootPartition is the id of the partition that the firmware has started this
// system from; "" where that is none, such as a DVD or the network. vars is EFIVars.
func BootPartition(vars string) string {
	b, err := os.ReadFile(filepath.Join(vars, "LoaderDevicePartUUID-"+loaderGUID))
	if err != nil || len(b) < 4 {
		return "" // the variable is there or not, and there is nothing else to ask
	}
	return strings.ToLower(text(b[4:]))
}

// loadOption is an EFI_LOAD_OPTION (UEFI 2.10, 3.1.3) for the loader on an EFI
// system partition.
func loadOption(p gpt.Partition, sector int) []byte {
	le := binary.LittleEndian
	// The partition, by its id: a hard drive media device path.
	drive := make([]byte, 42)
	drive[0], drive[1] = 4, 1
	le.PutUint16(drive[2:], uint16(len(drive)))
	le.PutUint32(drive[4:], uint32(p.Number))
	le.PutUint64(drive[8:], uint64(p.Offset/int64(sector)))
	le.PutUint64(drive[16:], uint64(p.Size/int64(sector)))
	copy(drive[24:], guidBytes(p.ID))
	drive[40], drive[41] = 2, 2 // of a GPT, by GUID

	name := ucs2(`\EFI\systemd\systemd-bootx64.efi`)
	file := append([]byte{4, 4, 0, 0}, name...)
	le.PutUint16(file[2:], uint16(len(file)))
	path := slices.Concat(drive, file, []byte{0x7f, 0xff, 4, 0})

	out := le.AppendUint32(nil, loadActive)
	out = le.AppendUint16(out, uint16(len(path)))
	out = append(out, ucs2(bootTitle)...)
	return append(out, path...)
}

// guidBytes is an id as the firmware stores it: its first three fields are
// little-endian.
func guidBytes(id [16]byte) []byte {
	return []byte{id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]}
}

func ucs2(s string) []byte {
	var out []byte
	for _, c := range append(utf16.Encode([]rune(s)), 0) {
		out = binary.LittleEndian.AppendUint16(out, c)
	}
	return out
}

// title reads the title out of a load option.
func title(option []byte) string {
	if len(option) < 6 {
		return ""
	}
	return text(option[6:])
}

// text is UCS-2 up to its end; without one it is none.
func text(b []byte) string {
	var chars []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			return string(utf16.Decode(chars))
		}
		chars = append(chars, c)
	}
	return ""
}

// efivars is a folder of variables. A file has 4 bytes of attributes and the
// value.
type efivars string

func (v efivars) path(name string) string {
	return filepath.Join(string(v), name+"-"+globalGUID)
}

func (v efivars) read(name string) ([]byte, error) {
	b, err := os.ReadFile(v.path(name))
	if err != nil {
		return nil, err
	}
	if len(b) < 4 {
		return nil, &fs.PathError{Op: "read", Path: v.path(name), Err: fmt.Errorf("%d bytes, want at least 4", len(b))}
	}
	return b[4:], nil
}

// write writes a variable in one call, as the file system wants it, unless it
// has that value: the firmware's memory wears.
func (v efivars) write(name string, value []byte) error {
	if have, err := v.read(name); err == nil && bytes.Equal(have, value) {
		return nil
	}
	v.unlock(name)
	f, err := os.OpenFile(v.path(name), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), value...))
	return errors.Join(err, f.Close())
}

// unlock takes off the mark by which the kernel keeps variables from being
// removed by accident.
func (v efivars) unlock(name string) {
	f, err := os.Open(v.path(name))
	if err != nil {
		return // a new one
	}
	defer f.Close()
	// Where there are no such marks, or they can't be changed, the write tells.
	if flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil && flags&immutable != 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable)
	}
}

var bootName = regexp.MustCompile(`^Boot([0-9A-F]{4})-` + globalGUID + `$`)

// register makes the option the first of the boot order. One of ours from an
// earlier installation is replaced, so that they do not pile up.
func (v efivars) register(option []byte) error {
	list, err := os.ReadDir(string(v))
	if err != nil {
		return err
	}
	used := map[uint16]bool{}
	number, ours := uint16(0), false
	for _, e := range list {
		m := bootName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		n, err := strconv.ParseUint(m[1], 16, 16)
		if err != nil {
			continue
		}
		used[uint16(n)] = true
		if have, err := v.read("Boot" + m[1]); err == nil && title(have) == bootTitle && !ours {
			number, ours = uint16(n), true
		}
	}
	for !ours && used[number] {
		if number++; number == 0 {
			return errors.New("there is no number left")
		}
	}
	if err := v.write(fmt.Sprintf("Boot%04X", number), option); err != nil {
		return err
	}
	order, err := v.read("BootOrder")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return v.write("BootOrder", first(number, order))
}

// first puts a number before the others of an order.
func first(number uint16, order []byte) []byte {
	out := binary.LittleEndian.AppendUint16(nil, number)
	for ; len(order) >= 2; order = order[2:] {
		if n := binary.LittleEndian.Uint16(order); n != number {
			out = binary.LittleEndian.AppendUint16(out, n)
		}
	}
	return out
}
