// Guest is the init of a virtual machine in tests. Of its boots, which it counts
// in a variable of the firmware, it lets the first end by the watchdog, and the
// second by the power button, at which it turns the machine off. What it does it
// says on the console.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	counter  = "/sys/firmware/efi/efivars/TestBoots-6ba7b810-9dad-41d1-80b4-00c04fd430c8"
	keyPower = 116 // include/uapi/linux/input-event-codes.h
)

func main() {
	for _, m := range []struct{ fstype, dir string }{{"devtmpfs", "/dev"}, {"sysfs", "/sys"}, {"efivarfs", "/sys/firmware/efi/efivars"}} {
		os.MkdirAll(m.dir, 0o755)
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil {
			say("mount %s: %v", m.dir, err)
		}
	}
	if console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0); err == nil {
		os.Stdout = console // there was none when the kernel started this program
	}
	boot := count()
	say("boot %d", boot)
	if boot == 1 {
		say("watchdog: %v", watchdog())
	} else {
		say("button: %v", button())
		say("power off: %v", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
	}
	time.Sleep(time.Hour) // an init that ended would be a panic
}

func say(format string, args ...any) { fmt.Printf("guest: "+format+"\n", args...) }

// count adds one to the variable, which starts with its attributes.
func count() byte {
	data, err := os.ReadFile(counter)
	if err != nil || len(data) != 5 {
		data = []byte{7, 0, 0, 0, 0} // non-volatile, for boot and run time
	}
	data[4]++
	if err := write(counter, data); err != nil {
		say("count: %v", err)
	}
	return data[4]
}

// write rewrites a variable, which the kernel protects once it is there.
func write(path string, data []byte) error {
	if f, err := os.Open(path); err == nil {
		defer f.Close()
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0); err != nil {
			return err
		}
	}
	return os.WriteFile(path, data, 0o644)
}

// watchdog arms the board's watchdog and never feeds it.
func watchdog() error {
	names, _ := filepath.Glob("/sys/class/watchdog/*/identity")
	for _, name := range names {
		identity, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(identity), "i6300ESB") {
			continue
		}
		f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		forever = f
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, 2)
	}
	return fmt.Errorf("none of %v is the board's", names)
}

// forever keeps the watchdog open: closed, some stop.
var forever *os.File

// button waits for the power button.
func button() error {
	names, _ := filepath.Glob("/dev/input/event*")
	pressed := make(chan error)
	for _, name := range names {
		go func() {
			f, err := os.Open(name)
			if err != nil {
				pressed <- err
				return
			}
			for event := make([]byte, 24); ; {
				if _, err := f.Read(event); err != nil {
					pressed <- err
					return
				}
				if binary.NativeEndian.Uint16(event[18:]) == keyPower {
					pressed <- nil
					return
				}
			}
		}()
	}
	say("waits for %d inputs", len(names))
	return <-pressed
}
