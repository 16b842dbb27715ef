package linkname

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/cmdline"
	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
)

func names(t *testing.T, recordings ...string) map[string]string {
	t.Helper()
	root := recorded.Lay(t, recordings...)
	links, err := sysfs.FS(filepath.Join(root, "sys")).Class("net")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, l := range links {
		out[l.Name()] = Of(l)
	}
	return out
}

// TestMachine: the cards of the recorded machine; that udev gives them the same
// names is shown by package udevd's tests.
func TestMachine(t *testing.T) {
	want := map[string]string{
		"eth0": "enp0s29f0", "eth1": "enp0s29f1", "eth2": "enp1s0", "eth3": "enp0s8", "usb0": "enp0s5u2", "lo": "",
	}
	if diff := cmp.Diff(want, names(t, recorded.Machine)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// card is a network card with what is special of it: lines "link/…" are of the
// link, others of the PCI device.
func card(address string, special ...string) string {
	pci := "/sys/devices/pci0000:00/" + address
	out := []string{
		"/sys/class/net/eth0 -> ../.." + strings.TrimPrefix(pci, "/sys") + "/net/eth0",
		"/sys/bus/pci/",
		pci + "/uevent = DRIVER=e1000\\n", pci + "/subsystem -> ../../../bus/pci",
		pci + "/net/eth0/uevent = INTERFACE=eth0\\nIFINDEX=2\\n", pci + "/net/eth0/subsystem -> ../../../../../class/net",
		pci + "/net/eth0/device -> ../..", pci + "/net/eth0/type = 1\\n", pci + "/net/eth0/ifindex = 2\\n", pci + "/net/eth0/iflink = 2\\n",
		pci + "/net/eth0/address = 52:54:00:aa:bb:cc\\n", pci + "/net/eth0/addr_assign_type = 0\\n", pci + "/net/eth0/name_assign_type = 1\\n",
	}
	for _, s := range special {
		if !strings.HasPrefix(s, "/") {
			s = pci + "/" + strings.Replace(s, "link/", "net/eth0/", 1)
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

func TestOf(t *testing.T) {
	for _, c := range []struct {
		name, tree, want string
	}{
		{"plain", card("0000:00:03.0"), "enp0s3"},
		{"domain", card("0001:0a:1f.0"), "enP1p10s31"},
		{"second function", card("0000:02:00.1"), "enp2s0f1"},
		{"first of two", card("0000:02:00.0", "/sys/devices/pci0000:00/0000:02:00.1/uevent = x\\n"), "enp2s0f0"},
		{"on the board by ACPI", card("0000:00:03.0", "acpi_index = 3\\n", "index = 9\\n"), "eno3"},
		{"on the board by SMBIOS", card("0000:00:03.0", "index = 1\\n"), "eno1"},
		{"number of a mistake", card("0000:00:03.0", "index = 16384\\n"), "enp0s3"},
		{"slot", card("0000:02:00.0", "/sys/bus/pci/slots/7/address = 0000:02:00\\n"), "ens7"},
		{"function in a slot", card("0000:02:00.1", "/sys/bus/pci/slots/7/address = 0000:02:00\\n"), "ens7f1"},
		{"slot without a number", card("0000:02:00.0", "/sys/bus/pci/slots/0/address = 0000:02:00\\n", "/sys/bus/pci/slots/7-1/address = 0000:02:00\\n"), "enp2s0"},
		{"another's slot", card("0000:02:00.0", "/sys/bus/pci/slots/7/address = 0000:03:00\\n"), "enp2s0"},
		{"named port", card("0000:02:00.0", "link/phys_port_name = p1\\n"), "enp2s0np1"},
		{"numbered port", card("0000:02:00.0", "link/dev_port = 1\\n"), "enp2s0d1"},
		{"port with a bad name", card("0000:02:00.0", "link/phys_port_name = ../x\\n"), "enp2s0"},
		{"wireless", card("0000:02:00.0", "link/uevent = DEVTYPE=wlan\\n"), "wlp2s0"},
		{"infiniband", card("0000:02:00.0", "link/type = 32\\n"), "ibp2s0"},
		{"too long", card("0000:ff:1f.7", "link/phys_port_name = sfp28port\\n"), "enx525400aabbcc"},
		{"too long, address is made up", card("0000:ff:1f.7", "link/phys_port_name = sfp28port\\n", "link/addr_assign_type = 1\\n"), ""},
		{"named by somebody", card("0000:00:03.0", "link/name_assign_type = 3\\n"), ""},
		{"renamed", card("0000:00:03.0", "link/name_assign_type = 4\\n"), ""},
		{"tunnel", card("0000:00:03.0", "link/type = 776\\n"), ""},
		{"on top of another", card("0000:00:03.0", "link/iflink = 5\\n"), ""},
		{"virtual function", card("0000:02:10.0", "physfn -> ../0000:02:00.0", "/sys/devices/pci0000:00/0000:02:00.0/virtfn0 -> ../0000:02:0f.0",
			"/sys/devices/pci0000:00/0000:02:00.0/virtfn3 -> ../0000:02:10.0", "/sys/devices/pci0000:00/0000:02:00.0/uevent = x\\n"), "enp2s0v3"},
	} {
		if got := names(t, c.tree); got["eth0"] != c.want {
			t.Errorf("%s: %q, want %q", c.name, got["eth0"], c.want)
		}
	}
}

func TestKernel(t *testing.T) {
	for line, want := range map[string]bool{
		"": false, "console=ttyS0 net.ifnames=0 panic=10": true, "net.ifnames=1": false, "net.ifnames=0 net.ifnames=1": false,
		"net.ifnames=off": true, "xnet.ifnames=0": false, "net.ifnames": false,
	} {
		if got := Kernel(cmdline.Parse(line)); got != want {
			t.Errorf("Kernel(%q) = %t, want %t", line, got, want)
		}
	}
}
