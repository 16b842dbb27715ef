// Package loopdev makes a block device of a file (loop(4)).
package loopdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// tries bounds how often another process may take the free device first.
const tries = 16

// Attach makes a read-only device of the file and returns its path. The device
// goes when nobody has it open or mounted any more; keep holds it open until then.
func Attach(file string) (path string, keep *os.File, err error) {
	backing, err := os.OpenFile(file, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	defer control.Close()
	for range tries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", nil, &fs.PathError{Op: "find a free loop device", Path: control.Name(), Err: err}
		}
		path := fmt.Sprintf("/dev/loop%d", n)
		device, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			return path, device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // EBUSY: somebody else was faster
			return "", nil, &fs.PathError{Op: "attach " + file + " to", Path: path, Err: err}
		}
	}
	return "", nil, fmt.Errorf("attach %s: every free loop device was taken by others, %d times", file, tries)
}
