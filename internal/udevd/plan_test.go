package udevd

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"talos/internal/disk"
	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
	"talos/internal/linux/uevent"
	"talos/internal/udevd/rules"
)

// machine is the recorded one.
func machine(t testing.TB) sysfs.FS {
	return sysfs.FS(filepath.Join(recorded.Lay(t, recorded.Machine), "sys"))
}

func accounts(t testing.TB) Accounts {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"passwd": "root:x:0:0::/:/x\nnobody:x:65534:0::/:/x\n", "group": "root:x:0:\nspecial:x:4242:\nbroken\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a, err := ReadAccounts(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// contentsOf is what was on the disks of the recorded machine.
func contentsOf(name string) (*disk.Device, *disk.Entry) {
	table := []disk.Entry{
		{Number: 1, Offset: 1 << 20, Size: 8 << 20, Type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", UUID: "e19e616f-f1e6-4d0a-ade9-ab94ac9cfb1d", Label: "EFI"},
		{Number: 2, Offset: 9 << 20, Size: 16 << 20, Type: "0fc63daf-8483-4772-8e79-3d69d8477de4", UUID: "595523ee-0838-4c82-8b0f-1aa8b54313a0", Label: "Größe a/b"},
	}
	switch name {
	case "vda":
		return &disk.Device{Volume: disk.Volume{Kind: "gpt", UUID: "07e046b3-1da4-468c-b3ef-a3046fecdf9c", Table: table}}, nil
	case "vda1":
		return &disk.Device{Volume: disk.Volume{Blank: true}}, &table[0]
	case "vda2":
		return &disk.Device{Volume: disk.Volume{Blank: true}}, &table[1]
	case "sdb":
		return &disk.Device{Volume: disk.Volume{Kind: "ext4", UUID: "fb299231-d0b4-44bb-acc5-622a75553469", Label: "my data"}}, nil
	case "sr0":
		return &disk.Device{Volume: disk.Volume{Kind: "iso9660", UUID: "2026-11-28-13-29-41-00", Label: "CIDATA"}}, nil
	}
	return nil, nil
}

// boot plans for every device of a machine, and returns all actions.
func boot(t testing.TB, tree sysfs.FS, db *DB, s Settings) []Action {
	t.Helper()
	events, err := uevent.Coldplug(tree, true)
	if err != nil {
		t.Fatal(err)
	}
	var all []Action
	for _, e := range events {
		dev, err := tree.At(e.DevPath)
		if err != nil {
			t.Fatal(err)
		}
		probe, entry := contentsOf(dev.Name())
		d, actions := Plan(db, Facts{Event: e, Device: dev, Probe: probe, Entry: entry}, s)
		if d.Key != "" {
			db.Put(d)
		}
		all = append(all, actions...)
	}
	return all
}

// TestLikeUdev: links below /dev/disk, modes and groups of nodes are those that
// systemd-udevd makes on the same machine, but for what is listed.
func TestLikeUdev(t *testing.T) {
	tree := machine(t)
	theirs := recorded.ByUdev(t)
	links, nodes := map[string]string{}, map[string][2]int{}
	db := NewDB()
	there := map[string]bool{}
	for _, a := range boot(t, tree, db, Settings{Accounts: accounts(t)}) {
		switch a := a.(type) {
		case Link:
			links["/dev/"+a.Name] = a.Node
		case SetNode:
			nodes["/dev/"+a.Name] = [2]int{int(a.Mode), a.GID}
		case Rename, Record: // TestRename, TestRecord
		default:
			t.Errorf("unexpected: %v", a)
		}
	}
	for _, d := range db.All() {
		there["/dev/"+d.Node] = true
	}
	// By programs that speak to the drives themselves.
	differ := map[string]bool{
		"/dev/disk/by-id/ata-QEMU_DVD-ROM_QM00005": true, // the kernel asks no CD drive for its serial number
		"/dev/cdrom":             true,
		"/dev/disk/by-diskseq/8": true, "/dev/disk/by-diskseq/9": true, // came the other way round when udev ran
	}
	for name, to := range theirs.Links {
		_, node := path.Split(to)
		if strings.HasPrefix(name, "/dev/disk/") || strings.HasPrefix(name, "/dev/dri/") || strings.HasPrefix(name, "/dev/block/") || name == "/dev/rtc" {
			if got := path.Base(links[name]); got != node && !differ[name] {
				t.Errorf("%s leads to %q, udev's to %s", name, got, node)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(links)) {
		newer := strings.HasPrefix(name, "/dev/disk/by-diskseq/") && strings.Contains(name, "-part") // since version 255
		if strings.HasPrefix(name, "/dev/disk/") && theirs.Links[name] == "" && !strings.HasSuffix(links[name], "loop0") && !newer {
			t.Errorf("%s leads to %s, udev has no such link", name, links[name])
		}
	}
	own := map[string]bool{ // groups that Debian has not, without which udev leaves nodes to root
		"/dev/input/mice": true, "/dev/vhost-net": true, "/dev/vhost-vsock": true,
	}
	compared := 0
	for name, access := range theirs.Nodes {
		if got, ok := nodes[name]; ok && !own[name] {
			compared++
			if got != access {
				t.Errorf("%s has mode %04o and group %d, udev's %04o and %d", name, got[0], got[1], access[0], access[1])
			}
		} else if !ok && there[name] && access != [2]int{0o600, 0} && name != "/dev/kmsg" { // 0644, as the kernel makes it
			t.Errorf("%s keeps its mode, udev's is %04o and group %d", name, access[0], access[1])
		}
	}
	if compared < 20 {
		t.Errorf("%d nodes compared, want at least 20", compared)
	}
}

// TestRename: names are udev's. Debian names USB cards by their address with a
// rule of its own, the scheme does not.
func TestRename(t *testing.T) {
	tree := machine(t)
	got := map[string]string{}
	for _, a := range boot(t, tree, NewDB(), Settings{}) {
		if r, ok := a.(Rename); ok {
			got[r.From] = r.To
		}
	}
	want := map[string]string{}
	for place, name := range recorded.ByUdev(t).Net {
		devs, err := tree.Class("net")
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range devs {
			if path.Dir(d.Path()) == place && d.Name() != name {
				want[d.Name()] = name
			}
		}
	}
	want["usb0"] = "enp0s5u2"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("renamed (-want +got):\n%s", diff)
	}
	for _, a := range boot(t, tree, NewDB(), Settings{KernelNames: true}) {
		if r, ok := a.(Rename); ok {
			t.Errorf("with net.ifnames=0: %v", r)
		}
	}
	set, problems := rules.Parse([]string{`SUBSYSTEM=="net", ATTR{address}=="52:54:00:00:00:02", NAME="lan0"`})
	if problems != nil {
		t.Fatal(problems)
	}
	got = map[string]string{}
	for _, a := range boot(t, tree, NewDB(), Settings{KernelNames: true, Rules: set}) {
		if r, ok := a.(Rename); ok {
			got[r.From] = r.To
		}
	}
	if diff := cmp.Diff(map[string]string{"eth2": "lan0"}, got); diff != "" {
		t.Errorf("renamed by a rule, the kernel's names otherwise (-want +got):\n%s", diff)
	}
}

// TestRecord: what libudev is told of a disk.
func TestRecord(t *testing.T) {
	records := map[string]string{}
	for _, a := range boot(t, machine(t), NewDB(), Settings{KernelNames: true}) {
		if r, ok := a.(Record); ok {
			records[r.Key] = r.Text
		}
	}
	want := `S:block/8:16
S:disk/by-diskseq/4
S:disk/by-id/scsi-35000c500aabbccdd
S:disk/by-id/wwn-0x5000c500aabbccdd
S:disk/by-label/my\x20data
S:disk/by-path/pci-0000:00:04.0-scsi-0:0:1:2
S:disk/by-uuid/fb299231-d0b4-44bb-acc5-622a75553469
L:0
I:1
E:ID_BUS=scsi
E:ID_FS_LABEL=my_data
E:ID_FS_TYPE=ext4
E:ID_FS_UUID=fb299231-d0b4-44bb-acc5-622a75553469
E:ID_MODEL=QEMU_HARDDISK
E:ID_PATH=pci-0000:00:04.0-scsi-0:0:1:2
E:ID_PATH_TAG=pci-0000_00_04_0-scsi-0_0_1_2
E:ID_SERIAL=35000c500aabbccdd
E:ID_SERIAL_SHORT=35000c500aabbccdd
E:ID_VENDOR=QEMU
E:ID_WWN=0x5000c500aabbccdd
V:1
`
	if diff := cmp.Diff(want, records["b8:16"]); diff != "" {
		t.Errorf("the record of sdb (-want +got):\n%s", diff)
	}
	if len(records) != 11+6 {
		t.Errorf("%d records, want those of 11 block devices and 6 links", len(records))
	}
}

// plugged is a block device without anything but its numbers.
func plugged(tree sysfs.FS, name, minor string, action uevent.Action, probe *disk.Device) Facts {
	p := "/devices/virtual/block/" + name
	dev, _ := tree.At(p) // the path is well-formed
	return Facts{Device: dev, Probe: probe, Event: uevent.Event{
		Action: action, DevPath: p, Subsystem: "block",
		Env: map[string]string{"ACTION": string(action), "DEVPATH": p, "SUBSYSTEM": "block", "MAJOR": "8", "MINOR": minor, "DEVNAME": name},
	}}
}

// TestClaims: who has a name keeps it, a rule's priority takes it, and it goes to
// the next one with its owner.
func TestClaims(t *testing.T) {
	tree := sysfs.FS(t.TempDir())
	set, problems := rules.Parse([]string{`KERNEL=="sdz", OPTIONS+="link_priority=10"`})
	if problems != nil {
		t.Fatal(problems)
	}
	same := &disk.Device{Volume: disk.Volume{Kind: "xfs", Label: "data"}}
	other := &disk.Device{Volume: disk.Volume{Kind: "xfs", Label: "other"}}
	db := NewDB()
	const label = "disk/by-label/data"
	for _, step := range []struct {
		facts Facts
		want  []Action // about the label
	}{
		{plugged(tree, "sdb", "16", uevent.Add, nil), nil},
		{plugged(tree, "sdb", "16", uevent.Change, same), []Action{Link{label, "sdb"}}},
		{plugged(tree, "sda", "0", uevent.Add, same), nil}, // comes later
		{plugged(tree, "sda", "0", uevent.Change, same), nil},
		{plugged(tree, "sdz", "400", uevent.Add, same), []Action{Link{label, "sdz"}}},
		{plugged(tree, "sdb", "16", uevent.Change, same), nil},
		{plugged(tree, "sdz", "400", uevent.Change, other), []Action{Link{label, "sdb"}}},
		{plugged(tree, "sdb", "16", uevent.Remove, nil), []Action{Link{label, "sda"}}},
		{plugged(tree, "sdb", "16", uevent.Add, same), nil}, // it is new again
		{plugged(tree, "sda", "0", uevent.Change, nil), []Action{Link{label, "sdb"}}},
		{plugged(tree, "sdb", "16", uevent.Remove, nil), []Action{Unlink{label}}},
	} {
		d, actions := Plan(db, step.facts, Settings{Rules: set})
		if d.Key != "" {
			db.Put(d)
		} else {
			db.Delete(keyOf(step.facts.Event))
		}
		var got []Action
		for _, a := range actions {
			switch a := a.(type) {
			case Link:
				if a.Name == label {
					got = append(got, a)
				}
			case Unlink:
				if a.Name == label {
					got = append(got, a)
				}
			}
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s of %s (-want +got):\n%s", step.facts.Event.Action, step.facts.Device.Name(), diff)
		}
	}
	if len(db.devices) != 2 || db.claims[label] != nil {
		t.Errorf("at the end: %d devices, claims %v", len(db.devices), db.claims)
	}
}

// TestUserRules: owners by name and number, and what can't be followed is told.
func TestUserRules(t *testing.T) {
	tree := sysfs.FS(t.TempDir())
	for _, c := range []struct {
		rule     string
		want     SetNode
		problems []string
	}{
		{`KERNEL=="none", MODE="0600"`, SetNode{Mode: 0o660, GID: 6}, nil},
		{`OWNER="nobody", GROUP="special", MODE="0640"`, SetNode{Mode: 0o640, UID: 65534, GID: 4242}, nil},
		{`OWNER="1000", GROUP="1001"`, SetNode{Mode: 0o660, UID: 1000, GID: 1001}, nil},
		{`OWNER="nemo", GROUP="-1"`, SetNode{Mode: 0o660, GID: 6}, []string{`no user "nemo"`, `no group "-1"`}},
	} {
		set, problems := rules.Parse([]string{c.rule})
		if problems != nil {
			t.Fatal(problems)
		}
		d, actions := Plan(NewDB(), plugged(tree, "sda", "0", uevent.Add, nil), Settings{Rules: set, Accounts: accounts(t)})
		c.want.Name, c.want.Block, c.want.Major = "sda", true, 8
		if len(actions) == 0 || actions[0] != Action(c.want) {
			t.Errorf("%s: %v, want %v first", c.rule, actions, c.want)
		}
		if diff := cmp.Diff(c.problems, d.Problems, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: problems (-want +got):\n%s", c.rule, diff)
		}
	}
}

// TestHostile: names that disks make up lead nowhere but to links below /dev/disk.
func TestHostile(t *testing.T) {
	tree := sysfs.FS(t.TempDir())
	for _, label := range []string{"../../null", "..", ".", "a/b", "\x00", strings.Repeat("x", 300), "\xff/..", "", " "} {
		probe := &disk.Device{Volume: disk.Volume{Kind: "ext4", Label: label, UUID: label}}
		entry := &disk.Entry{Number: 1, Label: label, UUID: label}
		f := plugged(tree, "sda", "0", uevent.Add, probe)
		f.Entry = entry
		f.Event.Env["DISKSEQ"] = label
		d, _ := Plan(NewDB(), f, Settings{})
		for _, l := range d.Links {
			parts := strings.Split(l, "/")
			if l != "block/8:0" && (len(parts) != 3 || parts[0] != "disk" || parts[2] == "" || parts[2] == "." || parts[2] == ".." || len(parts[2]) > 255) {
				t.Errorf("label %q makes the link %q", label, l)
			}
		}
	}
	f := plugged(tree, "sda", "0", uevent.Add, nil)
	f.Event.Env["DEVNAME"] = "../../etc/shadow"
	if d, _ := Plan(NewDB(), f, Settings{}); d.Node != "etc/shadow" { // below /dev, and no such device
		t.Errorf("node %q", d.Node)
	}
}
