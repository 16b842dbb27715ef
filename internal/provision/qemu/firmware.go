package qemu

import (
	"fmt"
	"os"
)

// Firmware is a UEFI firmware for machines.
type Firmware struct {
	Code   string // image, which machines share
	Vars   string // variables that a new machine starts with
	Secure bool   // can enforce Secure Boot; it starts without keys, which lets the boot loader enrol some
}

// firmwares are where distributions put their OVMF.
var firmwares = []Firmware{
	{Code: "/usr/share/OVMF/OVMF_CODE_4M.fd", Vars: "/usr/share/OVMF/OVMF_VARS_4M.fd"}, // Debian, Ubuntu
	{Code: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", Vars: "/usr/share/OVMF/OVMF_VARS_4M.fd", Secure: true},
	{Code: "/usr/share/edk2/x64/OVMF_CODE.4m.fd", Vars: "/usr/share/edk2/x64/OVMF_VARS.4m.fd"}, // Arch
	{Code: "/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd", Vars: "/usr/share/edk2/x64/OVMF_VARS.4m.fd", Secure: true},
	{Code: "/usr/share/edk2/ovmf/OVMF_CODE.fd", Vars: "/usr/share/edk2/ovmf/OVMF_VARS.fd"}, // Fedora
	{Code: "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", Vars: "/usr/share/edk2/ovmf/OVMF_VARS.fd", Secure: true},
}

// FindFirmware finds the firmware on this host.
func FindFirmware(secure bool) (Firmware, error) {
	for _, f := range firmwares {
		_, err1 := os.Stat(f.Code)
		_, err2 := os.Stat(f.Vars)
		if f.Secure == secure && err1 == nil && err2 == nil {
			return f, nil
		}
	}
	return Firmware{}, fmt.Errorf("no UEFI firmware for virtual machines on this host: install it (Debian package ovmf)")
}
