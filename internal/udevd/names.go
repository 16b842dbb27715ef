package udevd

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"talos/internal/disk"
	"talos/internal/linux/sysfs"
	"talos/internal/udevd/rules"
)

// identity is what a disk is known by, under the names that udev has for it.
type identity struct {
	bus    string   // ata, scsi, usb, nvme, mmc, virtio
	serial string   // model and serial number
	short  string   // the serial number alone
	model  string   //
	vendor string   //
	wwn    string   // "0x…"
	ids    []string // links below disk/by-id
}

// plain is a part of a name: blanks and what a name should not have become "_".
func plain(s string) string {
	return rules.Replace(strings.Join(strings.Fields(s), "_"), "")
}

// identify reads what tells a whole disk from others.
func identify(dev sysfs.Device) identity {
	name := dev.Name()
	switch {
	case strings.HasPrefix(name, "nvme"):
		return nvme(dev)
	case strings.HasPrefix(name, "mmcblk"):
		id := identity{bus: "mmc", model: plain(dev.Attr("device/name")), short: plain(dev.Attr("device/serial"))}
		return id.named(id.model, id.short)
	case strings.HasPrefix(name, "vd"):
		id := identity{bus: "virtio", short: plain(dev.Attr("serial"))}
		return id.named(id.short)
	case strings.HasPrefix(name, "dm-"):
		var id identity
		for _, kind := range []string{"name", "uuid"} {
			if v := dev.Attr("dm/" + kind); v != "" {
				id.ids = append(id.ids, "dm-"+kind+"-"+encode(v))
			}
		}
		return id
	}
	if dev.Parent().Subsystem() != "scsi" {
		return identity{}
	}
	return scsi(dev)
}

// named joins parts to the disk's name on its bus; without all of them there is none.
func (id identity) named(parts ...string) identity {
	if slices.Contains(parts, "") {
		return id
	}
	id.serial = strings.Join(parts, "_")
	id.ids = append(id.ids, id.bus+"-"+id.serial)
	return id
}

func nvme(dev sysfs.Device) identity {
	id := identity{bus: "nvme", model: plain(dev.Attr("device/model")), short: plain(dev.Attr("device/serial")), wwn: plain(dev.Attr("wwid"))}
	if id.wwn != "" {
		id.ids = append(id.ids, "nvme-"+id.wwn)
	}
	id = id.named(id.model, id.short)
	if n := dev.Attr("nsid"); n != "" && id.serial != "" { // a controller may have several
		id.ids = append(id.ids, "nvme-"+id.serial+"_"+plain(n))
	}
	return id
}

// scsi is a disk that the kernel drives as SCSI's, whatever the wire is.
func scsi(dev sysfs.Device) identity {
	vendor, model := dev.Attr("device/vendor"), dev.Attr("device/model")
	page := dev.Raw("device/vpd_pg83")
	id := identity{bus: "scsi", vendor: plain(vendor), model: plain(model), wwn: worldWide(page)}
	lun := lunName.FindStringSubmatch(dev.Parent().Name())
	for up := dev.Parent(); up.Valid() && lun != nil; up = up.Parent() {
		if up.Has("idVendor") {
			id.bus, id.short = "usb", plain(up.Attr("serial"))
			return id.named(id.vendor, id.model, id.short+"-"+lun[3]+":"+lun[4])
		}
	}
	if vendor == "ATA" {
		id.bus = "ata"
		if m, s, ok := ataNames(page); ok {
			id.model, id.short = plain(m), plain(s)
		}
		id = id.named(id.model, id.short)
	} else if s := designation(page, vendor, model); s != "" {
		id.short = plain(s)
		id = id.named(id.short)
	}
	if id.wwn != "" {
		id.ids = append(id.ids, "wwn-"+id.wwn)
	}
	return id
}

// lunName is the kernel's name of a logical unit: host, channel, target, unit.
var lunName = regexp.MustCompile(`^(\d+):(\d+):(\d+):(\d+)$`)

// designator is one id of the Device Identification page (SPC-4, 7.8.6).
type designator struct {
	kind  byte // 0 vendor's, 1 T10 vendor id, 2 EUI-64, 3 NAA
	text  bool
	value []byte
}

// designators of the logical unit itself, not of its port or target.
func designators(page []byte) []designator {
	if len(page) < 4 || page[1] != 0x83 {
		return nil
	}
	var out []designator
	for b := page[4:]; len(b) >= 4 && len(b) >= 4+int(b[3]); b = b[4+int(b[3]):] {
		if association := b[1] >> 4 & 3; association == 0 {
			out = append(out, designator{kind: b[1] & 15, text: b[0]&15 != 1, value: b[4 : 4+int(b[3])]})
		}
	}
	return out
}

// worldWide is the NAA name.
func worldWide(page []byte) string {
	for _, d := range designators(page) {
		if d.kind == 3 && len(d.value) >= 8 {
			return "0x" + hex.EncodeToString(d.value)
		}
	}
	return ""
}

// ataNames splits what libata makes of an ATA disk's own model and serial number:
// the only place where the kernel has the whole model (SAT-3, 10.3.4).
func ataNames(page []byte) (model, serial string, ok bool) {
	for _, d := range designators(page) {
		if d.kind == 1 && len(d.value) == 68 && string(d.value[:8]) == "ATA     " {
			return sysfs.Text(d.value[8:48]), sysfs.Text(d.value[48:]), true
		}
	}
	return "", "", false
}

// designation is the best id of the page, in the order and form of scsi_id: a
// digit for its kind, then the id.
func designation(page []byte, vendor, model string) string {
	best := ""
	for _, d := range designators(page) {
		text := hex.EncodeToString(d.value)
		if d.text {
			text = sysfs.Text(d.value)
		}
		if d.kind == 0 {
			text = vendor + " " + model + " " + text
		}
		if d.kind <= 3 && text != "" && (best == "" || d.kind > best[0]-'0') {
			best = strconv.Itoa(int(d.kind)) + text
		}
	}
	return best
}

// paths are the names of where a disk is plugged in, the first one being the
// usual one; nil where that can't be told.
func paths(dev sysfs.Device) []string {
	var tail []string // pieces, the last one first
	var compat func(string) string
	for up := dev.Parent(); up.Valid(); up = up.Parent() {
		switch up.Subsystem() {
		case "scsi":
			if m := lunName.FindStringSubmatch(up.Name()); m != nil {
				piece, also := scsiPath(up, m)
				if piece == "" {
					return nil
				}
				tail = append(tail, piece)
				compat = also
			}
		case "nvme":
			tail = append(tail, "nvme-"+plain(dev.Attr("nsid")))
		case "usb":
			if _, port, ok := strings.Cut(up.Name(), "-"); ok && strings.Contains(port, ":") {
				tail = append(tail, "usb-0:"+port)
			}
		case "virtio":
			compat = func(p string) string { return "virtio-" + p }
			if len(tail) > 0 {
				compat = nil
			}
		case "mmc", "mmc_host":
			return nil
		case "pci", "platform":
			tail = append(tail, up.Subsystem()+"-"+plain(up.Name()))
			slices.Reverse(tail)
			out := []string{strings.Join(tail, "-")}
			if compat != nil {
				out = append(out, compat(out[0]))
			}
			return out
		}
	}
	return nil
}

// scsiPath is the piece for a logical unit: by its wire where that has an
// address, else by the numbers of its host, counted within the adapter.
func scsiPath(unit sysfs.Device, lun []string) (piece string, compat func(string) string) {
	var host string
	for up := unit.Parent(); up.Valid(); up = up.Parent() {
		name := up.Name()
		switch {
		case strings.HasPrefix(name, "host") && host == "":
			host = name
		case strings.HasPrefix(name, "ata") && host != "":
			if n, err := strconv.Atoi(name[3:]); err == nil {
				return fmt.Sprintf("ata-%d", n-firstNumber(up, "ata")+1), func(p string) string { return p + ".0" }
			}
		case strings.HasPrefix(name, "rport-"):
			if port := up.Attr("fc_remote_ports/" + name + "/port_name"); port != "" {
				return "fc-" + plain(port) + "-lun-" + lun[4], nil
			}
		case strings.HasPrefix(name, "end_device-"):
			if address := up.Attr("sas_device/" + name + "/sas_address"); address != "" {
				return "sas-" + plain(address) + "-lun-" + lun[4], nil
			}
		case strings.HasPrefix(name, "session"):
			if target := up.Attr("iscsi_session/" + name + "/targetname"); target != "" {
				return "iscsi-" + plain(target) + "-lun-" + lun[4], nil
			}
		case host != "":
			n, _ := strconv.Atoi(strings.TrimPrefix(host, "host")) // 0 is as good as any if it is none
			return fmt.Sprintf("scsi-%d:%s:%s:%s", n-firstNumber(up.Child(host), "host"), lun[2], lun[3], lun[4]), nil
		}
	}
	return "", nil
}

// firstNumber is the lowest number of the devices beside dev that have its prefix.
func firstNumber(dev sysfs.Device, prefix string) int {
	lowest := -1
	for _, name := range dev.Sibling("").Entries("") {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, prefix)); strings.HasPrefix(name, prefix) && err == nil && (lowest < 0 || n < lowest) {
			lowest = n
		}
	}
	return max(lowest, 0)
}

// encode makes text a single name, as udev does: what a name should not have is
// written as \xNN, so that nothing is lost.
func encode(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError || r < 0x80 && rules.Replace(text[:n], "") == "_" && r != '_':
			for _, c := range []byte(text[:n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
	return b.String()
}

// contents are the names of what is on a block device: a file system's, and a
// partition's in its table.
func contents(probe *disk.Device, entry *disk.Entry) []string {
	var out []string
	add := func(dir, name string) {
		if name = encode(name); name != "" && name != "." && name != ".." && len(name) < 256 {
			out = append(out, "disk/"+dir+"/"+name)
		}
	}
	if probe != nil {
		switch probe.Kind {
		case "gpt", "mbr", "linux_raid_member", "zfs", "bcache", "bluestore", "talosmeta", "":
			// Members have their pool's id, which is no name for one of them.
		case "lvm2-pv":
			add("by-id", "lvm-pv-uuid-"+probe.UUID)
		default:
			add("by-uuid", probe.UUID)
			add("by-label", probe.Label)
		}
	}
	if entry != nil {
		add("by-partuuid", entry.UUID)
		add("by-partlabel", entry.Label)
	}
	return out
}
