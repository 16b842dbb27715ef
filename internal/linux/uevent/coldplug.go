package uevent

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"talos/internal/linux/sysfs"
)

// Coldplug makes an Add of every device that is there, a device before those
// below it. It reads what the kernel would send and does not ask it to send it
// again: that would come late and out of order with the rest, to every listener
// on the machine, and can't be done where sysfs is read-only. Who listens before
// calling this misses nothing; a device that comes in between is told of twice.
//
// Without others it is only about devices that have a node in /dev, and network
// links: a sixth of all.
func Coldplug(tree sysfs.FS, others bool) ([]Event, error) {
	devices, err := list(tree, others)
	if err != nil {
		return nil, fmt.Errorf("coldplug: %w", err)
	}
	out := make([]Event, 0, len(devices))
	for _, dev := range devices {
		if e, ok := Read(dev, Add); ok {
			out = append(out, e)
		}
	}
	return out, nil
}

func list(tree sysfs.FS, others bool) ([]sysfs.Device, error) {
	if others {
		return tree.All()
	}
	nodes, err := tree.Nodes()
	if err != nil {
		return nil, err
	}
	links, err := tree.Class("net")
	return append(links, nodes...), err
}

// Read makes an event of a device that is there; those without a subsystem are
// folders only.
func Read(dev sysfs.Device, action Action) (Event, bool) {
	subsystem := dev.Subsystem()
	if subsystem == "" {
		return Event{}, false
	}
	e := Event{Action: action, DevPath: dev.Path(), Subsystem: subsystem, Env: dev.Uevent()}
	e.Env["ACTION"], e.Env["DEVPATH"], e.Env["SUBSYSTEM"] = string(action), dev.Path(), subsystem
	return e, true
}

// Seqnum is the number of the kernel's last message. It counts those too that
// were for links of other network namespaces, which are not received here.
func Seqnum(tree sysfs.FS) (uint64, error) {
	data, err := os.ReadFile(filepath.Join(string(tree), "kernel/uevent_seqnum"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
}
