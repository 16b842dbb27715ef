package platform

import (
	"os"
	"path/filepath"
	"strings"
)

// firmware is how the firmware names the machine (SMBIOS); what it does not
// tell is empty.
type firmware struct {
	uuid, serial string
	all          map[string]string // by the names that dmidecode has for them
}

// identity reads what the firmware says, once.
func (p *Platform) identity() firmware {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.firmware == nil {
		f := readFirmware(p.DMI)
		p.firmware = &f
	}
	return *p.firmware
}

// readFirmware reads the kernel's view of SMBIOS. A machine without it, or
// with a kernel that hides it, has no identity there, which is no error.
func readFirmware(dir string) firmware {
	f := firmware{all: map[string]string{}}
	for name, file := range map[string]string{
		"system-uuid": "product_uuid", "system-serial-number": "product_serial", "system-product-name": "product_name",
		"system-manufacturer": "sys_vendor", "system-version": "product_version", "system-family": "product_family", "system-sku-number": "product_sku",
		"baseboard-serial-number": "board_serial", "baseboard-asset-tag": "board_asset_tag", "baseboard-product-name": "board_name",
		"baseboard-manufacturer": "board_vendor", "baseboard-version": "board_version",
		"chassis-serial-number": "chassis_serial", "chassis-asset-tag": "chassis_asset_tag", "chassis-manufacturer": "chassis_vendor",
		"chassis-version": "chassis_version", "bios-vendor": "bios_vendor", "bios-version": "bios_version", "bios-release-date": "bios_date",
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if value := strings.TrimSpace(string(text)); err == nil && told(value) {
			f.all[name] = value
		}
	}
	f.uuid, f.serial = strings.ToLower(f.all["system-uuid"]), f.all["system-serial-number"]
	return f
}

// told tells a value from what makers write who have none.
func told(value string) bool {
	switch strings.ToLower(value) {
	case "", "not specified", "none", "to be filled by o.e.m.", "default string", "system serial number", "0123456789", "unknown":
		return false
	}
	return strings.Trim(value, "0-") != "" && strings.Trim(strings.ToLower(value), "f-") != ""
}
