// Package linkname gives network links names that stay the same however many
// cards are added: from where a card is, not from the order of drivers.
//
// The scheme is the published one of systemd.net-naming-scheme(7), as of v255, of
// which this is the part that machines have: in this order, the first that the
// hardware tells and that fits into 15 bytes,
//
//	eno2             a card on the board, by the number that firmware gives it
//	ens3, ens3f1     a hotplug slot, with the function of the card
//	enp0s2, enP1p3s0 bus and slot of PCI, with the domain where it is not 0
//	enp0s5u2         further a port of USB, with configuration and interface
//	enx525400…       the address, if it is the card's own and nothing else is known
//
// with f1 for the function of a card that has several, v2 for a virtual function
// of SR-IOV, and n or d for one of several ports of a function. Other parts of
// the scheme (CCW, platform devices, BCMA, VIO, netdevsim) are left out: such
// links keep the kernel's names, as do all without hardware.
//
// It reads sysfs and decides; renaming is the caller's. It is safe for
// concurrent use.
package linkname

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"talos/internal/cmdline"
	"talos/internal/linux/sysfs"
)

// Kernel says whether the kernel's command line asks for the kernel's own
// names: net.ifnames=0. The last such argument counts.
func Kernel(line cmdline.Line) bool {
	value, _ := line.Last("net.ifnames")
	switch strings.ToLower(value) {
	case "0", "no", "false", "off":
		return true
	}
	return false
}

// Hardware types of links (ARPHRD_).
const (
	ethernet   = "1"
	infiniband = "32"
)

// longest is how long a link's name may be.
const longest = 15

// How a link got its name (NET_NAME_).
const byUser, renamed = "3", "4"

// Of is the name that a link should have; empty leaves it as it is. A link that
// somebody has named or renamed already is left alone.
func Of(dev sysfs.Device) string {
	props := dev.Uevent()
	prefix := prefix(dev, props["DEVTYPE"])
	switch how := dev.Attr("name_assign_type"); {
	case prefix == "", how == byUser, how == renamed:
		return ""
	case !dev.Has("device"): // no hardware
		return ""
	case props["DEVTYPE"] == "vlan", dev.Attr("ifindex") != dev.Attr("iflink"): // on top of another link
		return ""
	}
	h := find(dev)
	for _, name := range []string{h.onboard(), h.slot(), h.path()} {
		if name != "" && len(prefix+name) <= longest {
			return prefix + name
		}
	}
	if mac := strings.ReplaceAll(dev.Attr("address"), ":", ""); dev.Attr("addr_assign_type") == "0" && macPattern.MatchString(mac) {
		return prefix + "x" + mac
	}
	return ""
}

var macPattern = regexp.MustCompile(`^[0-9a-f]{12}$`)

func prefix(dev sysfs.Device, kind string) string {
	switch kind {
	case "wlan":
		return "wl"
	case "wwan":
		return "ww"
	}
	switch dev.Attr("type") {
	case ethernet:
		return "en"
	case infiniband:
		return "ib"
	}
	return ""
}

// hardware is where a link's card is.
type hardware struct {
	port     string // "n…" or "d…" where a function has several ports
	index    string // of a card on the board
	pci      pciAddress
	physical bool   // pci is known
	multi    bool   // the card has more than one function
	virtual  string // "v…" of a virtual function
	hotplug  string // number of the slot
	usb      string // "u…", empty for none
}

type pciAddress struct{ domain, bus, slot, function uint64 }

var pciName = regexp.MustCompile(`^([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$`)

func parsePCI(name string) (a pciAddress, ok bool) {
	m := pciName.FindStringSubmatch(name)
	if m == nil {
		return a, false
	}
	for i, to := range []*uint64{&a.domain, &a.bus, &a.slot, &a.function} {
		*to, _ = strconv.ParseUint(m[i+1], 16, 64) // the pattern has digits only
	}
	return a, true
}

// find looks at what is above the link: the card, with virtio in between or USB.
func find(dev sysfs.Device) hardware {
	h := hardware{port: port(dev)}
	up := dev.Parent()
	for up.Valid() && up.Subsystem() == "virtio" {
		up = up.Parent()
	}
	if up.Subsystem() == "usb" {
		if h.usb = usb(up); h.usb == "" {
			return h
		}
		for up.Valid() && up.Subsystem() != "pci" {
			up = up.Parent()
		}
	}
	if up.Subsystem() != "pci" {
		return h
	}
	if h.usb == "" {
		h.index = onboardIndex(up)
		h.hotplug = slotOf(up)
		if physical, number := virtualFunction(up); number >= 0 {
			h.virtual, up = fmt.Sprintf("v%d", number), physical
		}
	}
	h.pci, h.physical = parsePCI(up.Name())
	h.multi = h.pci.function > 0 || hasSiblings(up)
	return h
}

// port tells ports of one function apart, by the name that they have on the
// card or by their number.
func port(dev sysfs.Device) string {
	if name := dev.Attr("phys_port_name"); portPattern.MatchString(name) {
		return "n" + name
	}
	if n, err := strconv.ParseUint(dev.Attr("dev_port"), 10, 16); err == nil && n > 0 {
		return fmt.Sprintf("d%d", n)
	}
	return ""
}

var portPattern = regexp.MustCompile(`^[0-9A-Za-z_-]{1,12}$`)

// onboardIndex is what firmware numbers cards on the board with: ACPI's number
// counts more than SMBIOS's. Numbers above 2^14-1 are somebody's mistake.
func onboardIndex(pci sysfs.Device) string {
	for _, attr := range []string{"acpi_index", "index"} {
		if n, err := strconv.ParseUint(pci.Attr(attr), 10, 64); err == nil && n > 0 && n < 1<<14 {
			return strconv.FormatUint(n, 10)
		}
	}
	return ""
}

func (h hardware) onboard() string {
	if h.index == "" {
		return ""
	}
	return "o" + h.index + h.port
}

// slotOf is the number of the hotplug slot that has the card's address. Slots
// whose names are no numbers, or 0, tell nothing.
func slotOf(pci sysfs.Device) string {
	address, _, _ := strings.Cut(pci.Name(), ".")
	for name, at := range pci.Slots() {
		if n, err := strconv.ParseUint(name, 10, 31); at == address && err == nil && n > 0 {
			return strconv.FormatUint(n, 10)
		}
	}
	return ""
}

func (h hardware) slot() string {
	if h.hotplug == "" || !h.physical {
		return ""
	}
	return h.domain() + "s" + h.hotplug + h.function() + h.virtual + h.port
}

func (h hardware) path() string {
	if !h.physical {
		return ""
	}
	return fmt.Sprintf("%sp%ds%d%s%s%s%s", h.domain(), h.pci.bus, h.pci.slot, h.function(), h.virtual, h.usb, h.port)
}

func (h hardware) domain() string {
	if h.pci.domain == 0 {
		return ""
	}
	return fmt.Sprintf("P%d", h.pci.domain)
}

func (h hardware) function() string {
	if !h.multi {
		return ""
	}
	return fmt.Sprintf("f%d", h.pci.function)
}

// hasSiblings says whether the card has more functions than this one.
func hasSiblings(pci sysfs.Device) bool {
	base := strings.TrimSuffix(pci.Name(), "0")
	for n := 1; n < 8; n++ {
		if pci.Sibling(base + strconv.Itoa(n)).Exists() {
			return true
		}
	}
	return false
}

// virtualFunction finds the physical function of a virtual one, and its number.
func virtualFunction(pci sysfs.Device) (physical sysfs.Device, number int) {
	physical = pci.Linked("physfn")
	if !physical.Valid() {
		return physical, -1
	}
	for _, name := range physical.Entries("") {
		if n, ok := strings.CutPrefix(name, "virtfn"); ok && physical.Linked(name).Path() == pci.Path() {
			if i, err := strconv.Atoi(n); err == nil {
				return physical, i
			}
		}
	}
	return physical, -1
}

// usbInterface is the name of an interface: bus, ports, configuration, interface.
var usbInterface = regexp.MustCompile(`^\d+-([\d.]+):(\d+)\.(\d+)$`)

// usb is the part of the name for an interface of a USB device: its ports, and
// configuration and interface where these are not the first.
func usb(dev sysfs.Device) string {
	m := usbInterface.FindStringSubmatch(dev.Name())
	if m == nil {
		return ""
	}
	out := "u" + strings.ReplaceAll(m[1], ".", "u")
	if m[2] != "1" {
		out += "c" + m[2]
	}
	if m[3] != "0" {
		out += "i" + m[3]
	}
	return out
}
