package qemu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// args is QEMU's command line. Nothing on it is secret: all users of the host
// see it.
func (v VM) args() ([]string, error) {
	a := []string{
		"-name", escape(v.Name),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", v.machine(), "-accel", v.Accel.accel(), "-cpu", v.Accel.cpu(),
		"-smp", strconv.Itoa(max(v.CPUs, 1)), "-m", strconv.FormatInt(v.Memory>>20, 10) + "M",
		"-smbios", "type=1,uuid=" + v.UUID + ",serial=" + escape(v.Serial),
		"-rtc", "base=" + v.rtc(),
		"-chardev", "stdio,id=events,signal=off", "-mon", "chardev=events,mode=control",
		"-chardev", "socket,id=control,server=on,wait=off,path=" + controlSocket, "-mon", "chardev=control,mode=control",
		"-chardev", "file,id=console,append=on,path=" + escape(v.Log), "-serial", "chardev:console",
		"-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
		// Both watchdogs that the board can have reset the machine.
		"-device", "i6300esb", "-global", "ICH9-LPC.noreboot=off", "-action", "watchdog=reset",
	}
	if v.Screen {
		a = append(a, "-device", "VGA")
	}
	a = append(a, v.firmwareArgs()...)
	for i, d := range v.Disks {
		args, err := d.args(i, v.UUID)
		if err != nil {
			return nil, fmt.Errorf("disk %d: %w", i, err)
		}
		a = append(a, args...)
	}
	if v.CD != "" {
		a = append(a, "-blockdev", blockdev("cd", v.CD, true),
			"-device", fmt.Sprintf("ide-cd,bus=ide.%d,drive=cd,bootindex=%d", cdPort, firstBoot+len(v.Disks)))
	}
	if k := v.Kernel; k != nil {
		a = append(a, "-kernel", k.Image, "-append", k.Cmdline)
		if k.Initrd != "" {
			a = append(a, "-initrd", k.Initrd)
		}
	}
	for i, l := range v.Links {
		a = append(a, l.args(i)...)
	}
	if v.TPM {
		a = append(a, "-chardev", "socket,id=tpm,path="+tpmSocket, "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm")
	}
	return a, nil
}

func (v VM) machine() string {
	if v.Firmware.Secure {
		return "q35,smm=on" // the firmware keeps its variables from the system by it
	}
	return "q35,smm=off"
}

func (v VM) rtc() string {
	if v.Clock.IsZero() {
		return "utc"
	}
	return v.Clock.UTC().Format(time.DateOnly + "T" + time.TimeOnly)
}

func (v VM) firmwareArgs() []string {
	a := []string{
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + escape(v.Firmware.Code),
		"-drive", "if=pflash,unit=1,format=raw,file=" + escape(v.vars()),
	}
	if v.Firmware.Secure {
		a = append(a, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	return a
}

func (l Link) args(i int) []string {
	id := "net" + strconv.Itoa(i)
	backend := "tap,id=" + id + ",script=no,downscript=no,ifname=" + escape(l.Tap)
	if l.Tap == "" {
		backend = "user,restrict=on,id=" + id
		for _, f := range l.Forwards {
			backend += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
		}
	}
	// Without a ROM: the firmware has a driver of its own.
	return []string{"-netdev", backend, "-device", "virtio-net-pci,romfile=,netdev=" + id + ",mac=" + l.MAC}
}

// escape makes text a value in QEMU's lists of key=value.
func escape(text string) string { return strings.ReplaceAll(text, ",", ",,") }

// object is a JSON object on the command line.
func object(o map[string]any) string {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err) // strings, numbers and booleans only
	}
	return string(data)
}

func blockdev(node, path string, readOnly bool) string {
	return object(map[string]any{
		"driver": "raw", "node-name": node, "read-only": readOnly, "discard": "unmap", "detect-zeroes": "unmap",
		"file": fileNode(path, readOnly),
	})
}

func fileNode(path string, readOnly bool) map[string]any {
	return map[string]any{"driver": "file", "filename": path, "read-only": readOnly, "discard": "unmap"}
}
