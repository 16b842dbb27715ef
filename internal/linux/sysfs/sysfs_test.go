package sysfs_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
)

const tree = `
/sys/class/net/eth0 -> ../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0
/sys/class/net/bonding_masters = \n
/sys/bus/pci/devices/0000:00:03.0 -> ../../../devices/pci0000:00/0000:00:03.0
/sys/bus/pci/drivers/virtio-pci/
/sys/class/net/away -> ../../../etc
/sys/class/net/gone -> ../../devices/virtual/net/gone
/sys/devices/pci0000:00/uevent =
/sys/devices/pci0000:00/0000:00:03.0/uevent = DRIVER=virtio-pci\nPCI_CLASS=20000\nPCI_ID=1AF4:1041\n
/sys/devices/pci0000:00/0000:00:03.0/driver -> ../../../bus/pci/drivers/virtio-pci
/sys/devices/pci0000:00/0000:00:03.0/vendor = 0x1af4\n
/sys/devices/pci0000:00/0000:00:03.0/virtio2/uevent = DRIVER=virtio_net\n
/sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/uevent = INTERFACE=eth0\nIFINDEX=2\n
/sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/subsystem -> ../../../../../../class/net
/sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/address = 52:54:00:12:34:56\n
`

func TestDevice(t *testing.T) {
	root := recorded.Lay(t, tree, "/etc/shadow = secret\n")
	fs := sysfs.FS(root + "/sys")
	devs, err := fs.Class("net")
	if err != nil || len(devs) != 1 {
		t.Fatalf("Class(net) = %v, %v, want one device", devs, err)
	}
	dev := devs[0]
	pci := dev.Parent().Parent()
	for what, c := range map[string]struct{ got, want string }{
		"path":             {dev.Path(), "/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0"},
		"subsystem":        {dev.Subsystem(), "net"},
		"attribute":        {dev.Attr("address"), "52:54:00:12:34:56"},
		"none":             {dev.Attr("nothing"), ""},
		"folder":           {dev.Attr("."), ""},
		"out of the tree":  {string(dev.Raw("../../../../../../../etc/shadow")), ""},
		"parent":           {dev.Parent().Name(), "virtio2"},
		"parent's parent":  {pci.Name(), "0000:00:03.0"},
		"driver":           {pci.Driver(), "virtio-pci"},
		"uevent":           {pci.Uevent()["PCI_ID"], "1AF4:1041"},
		"above":            {pci.Parent().Name(), "pci0000:00"},
		"no parent":        {pci.Parent().Parent().Path(), ""},
		"child":            {pci.Child("virtio2/net/eth0").Path(), dev.Path()},
		"child of nothing": {sysfs.Device{}.Attr("uevent"), ""},
	} {
		if c.got != c.want {
			t.Errorf("%s = %q, want %q", what, c.got, c.want)
		}
	}
	if !dev.Exists() || pci.Child("gone").Exists() || (sysfs.Device{}).Exists() {
		t.Error("Exists is wrong of a device")
	}
	if devs, err := fs.Class("none"); err != nil || devs != nil {
		t.Errorf("Class(none) = %v, %v, want nothing", devs, err)
	}
	for _, name := range []string{"/class/net/away", "/class/net/gone", "/etc", "/../etc/shadow"} {
		if dev, err := fs.Device(name); !errors.Is(err, sysfs.ErrNoDevice) {
			t.Errorf("Device(%s) = %v, %v, want ErrNoDevice", name, dev, err)
		}
	}
}

// TestAt: the path of a uevent can't lead out of the tree.
func TestAt(t *testing.T) {
	for path, ok := range map[string]bool{
		"/devices/virtual/net/lo": true, "/devices/../../etc": false, "/devices/": false, "devices/x": false, "": false, "/module/x": false,
	} {
		if dev, err := sysfs.FS("/sys").At(path); (err == nil) != ok || dev.Valid() != ok {
			t.Errorf("At(%q) = %v, %v, want a device: %t", path, dev, err, ok)
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"  Samsung SSD 870  \n": "Samsung SSD 870", "\x00\x00abc\x00": "abc", "a\x1b[2Jb": "a[2Jb", "one\ntwo": "one",
		"\xff\xfe": "", "": "", "größe\xc3": "größe", strings.Repeat("ä", 200): strings.Repeat("ä", 128),
	} {
		if diff := cmp.Diff(want, sysfs.Text([]byte(in))); diff != "" {
			t.Errorf("Text(%q) (-want +got):\n%s", in, diff)
		}
	}
}
