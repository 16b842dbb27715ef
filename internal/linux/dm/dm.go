// Package dm makes and removes device-mapper devices, and tells what they do.
//
// It is a thin layer over the control device's ioctls
// (Documentation/admin-guide/device-mapper, include/uapi/linux/dm-ioctl.h) and
// keeps no state. What a table says is the caller's.
package dm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Control is the device that takes the ioctls.
const Control = "/dev/mapper/control"

// SectorSize is the unit of tables, whatever the disk's own is.
const SectorSize = 512

// Target is one line of a table.
type Target struct {
	Start, Length uint64 // sectors
	Type          string
	Params        string
}

// The layout of struct dm_ioctl and the commands used, from dm-ioctl.h.
const (
	nameLength = 128
	uuidLength = 129
	bufferSize = 16 << 10

	flagReadOnly = 1 << 0
	flagTable    = 1 << 4 // of cmdStatus: parameters in place of the state
	flagFull     = 1 << 8 // the answer did not fit

	cmdCreate  = 3
	cmdRemove  = 4
	cmdSuspend = 6
	cmdLoad    = 9
	cmdStatus  = 12
)

type header struct {
	Version     [3]uint32
	DataSize    uint32
	DataStart   uint32
	TargetCount uint32
	OpenCount   int32
	Flags       uint32
	EventNr     uint32
	_           uint32
	Dev         uint64
	Name        [nameLength]byte
	UUID        [uuidLength]byte
	_           [7]byte
}

type spec struct {
	Start, Length uint64
	Status        int32
	Next          uint32
	Type          [16]byte
}

const (
	headerSize = 312
	specSize   = 40
)

// Create makes a read-only device of that name and returns its node, which the
// kernel makes in /dev. What was made is removed again when a step fails.
func Create(name string, table ...Target) (string, error) {
	control, err := openControl()
	if err != nil {
		return "", err
	}
	defer control.Close()
	h, err := do(control, cmdCreate, name, 0, nil)
	if err != nil {
		return "", fmt.Errorf("create device %s: %w", name, err)
	}
	path, err := activate(control, name, h.Dev, table)
	if err != nil {
		_, undo := do(control, cmdRemove, name, 0, nil)
		return "", errors.Join(err, undo)
	}
	return path, nil
}

func activate(control *os.File, name string, dev uint64, table []Target) (string, error) {
	if _, err := do(control, cmdLoad, name, flagReadOnly, table); err != nil {
		return "", fmt.Errorf("load table of device %s (%+v): %w", name, table, err)
	}
	// Suspend without its flag is resume: the table comes into use.
	if _, err := do(control, cmdSuspend, name, 0, nil); err != nil {
		return "", fmt.Errorf("activate device %s: %w", name, err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(dev)), nil
}

// Remove takes a device away; one that is in use stays, with EBUSY.
func Remove(name string) error {
	control, err := openControl()
	if err != nil {
		return err
	}
	defer control.Close()
	if _, err := do(control, cmdRemove, name, 0, nil); err != nil {
		return fmt.Errorf("remove device %s: %w", name, err)
	}
	return nil
}

// Table is the table of a device that is in use.
func Table(name string) ([]Target, error) { return look(name, flagTable) }

// Status is the same with each target's state, as its driver words it, in place
// of its parameters.
func Status(name string) ([]Target, error) { return look(name, 0) }

func look(name string, flags uint32) ([]Target, error) {
	control, err := openControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	buf, err := request(name, flags, nil)
	if err != nil {
		return nil, err
	}
	if err := ioctl(control, cmdStatus, buf); err != nil {
		return nil, fmt.Errorf("ask for the table of device %s: %w", name, err)
	}
	table, err := targets(buf)
	if err != nil {
		return nil, fmt.Errorf("table of device %s: %w", name, err)
	}
	return table, nil
}

// targets reads the kernel's answer. Unlike in what it is given, each spec says
// where the next one is from the start of the first.
func targets(buf []byte) ([]Target, error) {
	var h header
	if err := binary.Read(bytes.NewReader(buf), binary.NativeEndian, &h); err != nil {
		return nil, err
	}
	if h.Flags&flagFull != 0 || h.DataStart > uint32(len(buf)) || h.TargetCount > bufferSize/specSize {
		return nil, fmt.Errorf("it is longer than %d bytes", bufferSize)
	}
	data := buf[h.DataStart:]
	var out []Target
	for at := uint32(0); len(out) < int(h.TargetCount); {
		if int(at)+specSize > len(data) {
			return nil, errors.New("it ends early")
		}
		var s spec
		if err := binary.Read(bytes.NewReader(data[at:]), binary.NativeEndian, &s); err != nil {
			return nil, err
		}
		kind, _, _ := bytes.Cut(s.Type[:], []byte{0})
		params, _, _ := bytes.Cut(data[at+specSize:], []byte{0})
		out = append(out, Target{Start: s.Start, Length: s.Length, Type: string(kind), Params: string(params)})
		at = s.Next
	}
	return out, nil
}

func openControl() (*os.File, error) { return os.OpenFile(Control, os.O_RDWR|unix.O_CLOEXEC, 0) }

// do runs one ioctl and returns what the kernel says of the device.
func do(control *os.File, cmd uintptr, name string, flags uint32, table []Target) (header, error) {
	buf, err := request(name, flags, table)
	if err != nil {
		return header{}, err
	}
	if err := ioctl(control, cmd, buf); err != nil {
		return header{}, err
	}
	var h header
	return h, binary.Read(bytes.NewReader(buf), binary.NativeEndian, &h)
}

func ioctl(control *os.File, cmd uintptr, buf []byte) error {
	// _IOWR(DM_IOCTL, cmd, struct dm_ioctl)
	nr := uintptr(3)<<30 | uintptr(headerSize)<<16 | uintptr(0xfd)<<8 | cmd
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), nr, uintptr(unsafe.Pointer(&buf[0]))); errno != 0 {
		return errno
	}
	return nil
}

// request lays out header and table as the kernel wants them: each target's
// spec is followed by its parameters, ended by a zero byte and padded to eight.
func request(name string, flags uint32, table []Target) ([]byte, error) {
	if name == "" || len(name) >= nameLength {
		return nil, fmt.Errorf("name %q of a device: want 1 to %d bytes", name, nameLength-1)
	}
	h := header{Version: [3]uint32{4, 0, 0}, DataSize: bufferSize, DataStart: headerSize, TargetCount: uint32(len(table)), Flags: flags}
	copy(h.Name[:], name)
	buf, err := binary.Append(make([]byte, 0, bufferSize), binary.NativeEndian, h)
	if err != nil {
		return nil, err
	}
	for _, t := range table {
		s := spec{Start: t.Start, Length: t.Length}
		if len(t.Type) >= len(s.Type) {
			return nil, fmt.Errorf("target type %q is longer than %d bytes", t.Type, len(s.Type)-1)
		}
		copy(s.Type[:], t.Type)
		s.Next = uint32(specSize+len(t.Params)+1+7) &^ 7
		start := len(buf)
		if buf, err = binary.Append(buf, binary.NativeEndian, s); err != nil {
			return nil, err
		}
		buf = append(buf, t.Params...)
		for len(buf) < start+int(s.Next) {
			buf = append(buf, 0)
		}
	}
	if len(buf) > bufferSize {
		return nil, fmt.Errorf("table of device %s is longer than %d bytes", name, bufferSize)
	}
	return buf[:bufferSize], nil
}
