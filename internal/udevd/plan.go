package udevd

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"talos/internal/disk"
	"talos/internal/linux/sysfs"
	"talos/internal/linux/uevent"
	"talos/internal/udevd/linkname"
	"talos/internal/udevd/rules"
)

// Facts are what is known when an event is dealt with.
type Facts struct {
	Event  uevent.Event
	Device sysfs.Device
	// Probe is what is on a block device; nil: it has not been looked at, or
	// could not be, for the reason ProbeErr.
	Probe    *disk.Device
	ProbeErr string
	// Entry is a partition's row in its disk's table, if that is known.
	Entry *disk.Entry
}

// Settings are what people choose.
type Settings struct {
	Rules       rules.Set
	KernelNames bool // links keep the kernel's names (net.ifnames=0)
	Accounts    Accounts
}

// Action is something to be done to the machine; doing it again changes nothing.
type Action interface{ fmt.Stringer }

// The actions.
type (
	// SetNode sets who may use a node in /dev, if it still is that device.
	SetNode struct {
		Name         string
		Block        bool
		Major, Minor uint32
		Mode         uint32
		UID, GID     int
	}
	// Link makes a symbolic link below /dev to a node.
	Link struct{ Name, Node string }
	// Unlink removes a symbolic link below /dev.
	Unlink struct{ Name string }
	// Rename gives a network link a name.
	Rename struct {
		Index    int
		From, To string
	}
	// SetAttr writes to an attribute in sysfs.
	SetAttr struct{ Path, Name, Value string }
	// Record tells programs in pods of a device's properties, in libudev's form.
	Record struct{ Key, Text string }
	// Forget takes a Record away.
	Forget struct{ Key string }
)

func (a SetNode) String() string {
	return fmt.Sprintf("set mode %04o, owner %d:%d of %s", a.Mode, a.UID, a.GID, a.Name)
}
func (a Link) String() string    { return fmt.Sprintf("link %s to %s", a.Name, a.Node) }
func (a Unlink) String() string  { return "remove link " + a.Name }
func (a Rename) String() string  { return fmt.Sprintf("rename link %s to %s", a.From, a.To) }
func (a Record) String() string  { return "record properties of " + a.Key }
func (a Forget) String() string  { return "forget properties of " + a.Key }
func (a SetAttr) String() string { return fmt.Sprintf("write %q to %s/%s", a.Value, a.Path, a.Name) }

// Plan says what an event makes of a device and what is to be done. It changes
// neither the machine nor the database: of the device's attributes it only reads.
// The device is the zero value if nothing is to be remembered of it.
func Plan(db *DB, f Facts, s Settings) (Device, []Action) {
	key := keyOf(f.Event)
	before, known := db.Get(key)
	if f.Event.Action == uevent.Remove {
		out := db.relink(before, Device{Key: key})
		if told(before) {
			out = append(out, Forget{string(key)})
		}
		return Device{}, out
	}
	d := describe(f, before, known, s.Accounts)
	if !known {
		d.Order = db.count + 1
	}
	d.Action = f.Event.Action
	said := s.Rules.Apply(rules.Subject{Event: f.Event, Device: f.Device, Env: d.Env, Name: f.Device.Name(), Links: d.Links})
	d.obey(said, s.Accounts)
	var out []Action
	if d.Mode != 0 {
		out = append(out, SetNode{d.Node, d.Subsystem == "block", d.Major, d.Minor, d.Mode, d.UID, d.GID})
	}
	for _, a := range said.Attrs {
		out = append(out, SetAttr{d.Path, a.Name, a.Value})
	}
	if f.Event.Subsystem == "net" && f.Event.Action == uevent.Add {
		out = append(out, name(f.Device, said.Name, s.KernelNames)...)
	}
	out = append(out, db.relink(before, d)...)
	if d.Node == "" && d.Subsystem != "net" {
		return Device{}, out
	}
	if told(d) {
		out = append(out, Record{string(key), record(f.Event.Env, d)})
	}
	return d, out
}

// told are devices of which pods want to know more than the kernel says:
// storage drivers ask libudev for what is on disks.
func told(d Device) bool { return d.Subsystem == "block" || d.Subsystem == "net" }

// record is a device in libudev's form: links, their priority, and properties
// that the kernel does not tell itself.
func record(kernel map[string]string, d Device) string {
	var b strings.Builder
	for _, l := range d.Links {
		fmt.Fprintf(&b, "S:%s\n", l)
	}
	// When it was ready, in microseconds: that there is a time is what counts.
	fmt.Fprintf(&b, "L:%d\nI:1\n", d.Priority)
	for _, k := range slices.Sorted(maps.Keys(d.Env)) {
		if _, has := kernel[k]; !has && !strings.ContainsAny(k+d.Env[k], "\n") {
			fmt.Fprintf(&b, "E:%s=%s\n", k, d.Env[k])
		}
	}
	b.WriteString("V:1\n")
	return b.String()
}

// name renames a link that has come, if a rule or the scheme has another name.
func name(dev sysfs.Device, wanted string, kernelNames bool) []Action {
	if wanted == "" && !kernelNames {
		wanted = linkname.Of(dev)
	}
	index, err := strconv.Atoi(dev.Attr("ifindex"))
	if wanted == "" || wanted == dev.Name() || err != nil {
		return nil
	}
	return []Action{Rename{index, dev.Name(), wanted}}
}

// relink says which links below /dev change their owner when a device changes.
// Those that it keeps are told too: somebody may have removed them.
func (db *DB) relink(before, after Device) []Action {
	names := append(slices.Clone(before.Links), after.Links...)
	slices.Sort(names)
	var out []Action
	for _, l := range slices.Compact(names) {
		was, had := db.owner(l, before)
		is, has := db.owner(l, after)
		switch {
		case !has:
			out = append(out, Unlink{l})
		case !had, was.Key != is.Key, is.Key == after.Key:
			out = append(out, Link{l, is.Node})
		}
	}
	return out
}

// describe is the device before rules.
func describe(f Facts, before Device, known bool, accounts Accounts) Device {
	env := f.Event.Env
	d := Device{
		Key: keyOf(f.Event), Path: f.Event.DevPath, Subsystem: f.Event.Subsystem, Order: before.Order, Changes: before.Changes + 1,
		Probe: f.Probe, ProbeErr: f.ProbeErr, Env: map[string]string{},
	}
	for k, v := range env {
		d.Env[k] = sysfs.Text([]byte(v))
	}
	for _, k := range []string{"ACTION", "SEQNUM", "SYNTH_UUID"} {
		delete(d.Env, k)
	}
	if node := path.Clean("/" + env["DEVNAME"]); env["DEVNAME"] != "" && node != "/" && env["MAJOR"] != "" {
		d.Node = node[1:]
		d.Major, d.Minor = number(env["MAJOR"]), number(env["MINOR"])
		if row, ok := rowFor(d.Subsystem, d.Node); ok {
			d.Mode, d.GID = row.mode, accounts.Groups[row.group]
		}
		kind := "char"
		if d.Subsystem == "block" {
			kind = "block"
		}
		d.Links = append(d.Links, fmt.Sprintf("%s/%d:%d", kind, d.Major, d.Minor))
	}
	switch d.Subsystem {
	case "block":
		d.block(f)
	case "rtc":
		if f.Device.Attr("hctosys") == "1" || f.Device.Name() == "rtc0" {
			d.Links = append(d.Links, "rtc")
		}
	case "virtio-ports":
		if n := plain(f.Device.Attr("name")); n != "" {
			d.Links = append(d.Links, "virtio-ports/"+n)
		}
	case "drm":
		for kind, tail := range map[string]string{"card": "-card", "renderD": "-render"} {
			if p := paths(f.Device); strings.HasPrefix(path.Base(d.Node), kind) && p != nil {
				d.Links = append(d.Links, "dri/by-path/"+p[0]+tail)
			}
		}
	}
	d.tidy()
	return d
}

// tidy sorts the claims and drops what is no path below /dev.
func (d *Device) tidy() {
	d.Links = slices.DeleteFunc(d.Links, func(l string) bool {
		long := slices.ContainsFunc(strings.Split(l, "/"), func(part string) bool { return len(part) > 255 })
		return !inside(l) || l == d.Node || long
	})
	slices.Sort(d.Links)
	d.Links = slices.Compact(d.Links)
}

// block adds what disks and partitions are known by, and its properties.
func (d *Device) block(f Facts) {
	whole, suffix := f.Device, ""
	if d.Partition() {
		whole, suffix = f.Device.Parent(), "-part"+f.Device.Attr("partition")
	}
	id, where := identify(whole), paths(whole)
	for _, name := range id.ids {
		d.Links = append(d.Links, "disk/by-id/"+name+suffix)
	}
	for _, p := range where {
		d.Links = append(d.Links, "disk/by-path/"+p+suffix)
	}
	if seq := d.Env["DISKSEQ"]; seq != "" {
		d.Links = append(d.Links, "disk/by-diskseq/"+plain(seq)+suffix)
	}
	if dm := f.Device.Attr("dm/name"); dm != "" {
		d.Links = append(d.Links, "mapper/"+encode(dm))
	}
	d.Links = append(d.Links, contents(f.Probe, f.Entry)...)
	set := map[string]string{
		"ID_BUS": id.bus, "ID_SERIAL": id.serial, "ID_SERIAL_SHORT": id.short, "ID_MODEL": id.model, "ID_VENDOR": id.vendor, "ID_WWN": id.wwn,
	}
	if where != nil {
		set["ID_PATH"], set["ID_PATH_TAG"] = where[0], strings.NewReplacer(":", "_", ".", "_").Replace(where[0])
	}
	if p := f.Probe; p != nil {
		switch p.Kind {
		case "gpt", "mbr":
			set["ID_PART_TABLE_TYPE"], set["ID_PART_TABLE_UUID"] = udevKind(p.Kind), p.UUID
		default:
			set["ID_FS_TYPE"], set["ID_FS_UUID"], set["ID_FS_LABEL"] = udevKind(p.Kind), p.UUID, plain(p.Label)
		}
	}
	if e := f.Entry; e != nil {
		set["ID_PART_ENTRY_UUID"], set["ID_PART_ENTRY_TYPE"], set["ID_PART_ENTRY_NAME"] = e.UUID, e.Type, encode(e.Label)
		set["ID_PART_ENTRY_NUMBER"] = strconv.Itoa(e.Number)
	}
	for k, v := range set {
		if v != "" {
			d.Env[k] = v
		}
	}
}

// udevKind is what udev calls a kind of contents, for rules that ask for it.
func udevKind(kind string) string {
	other := map[string]string{"mbr": "dos", "luks": "crypto_LUKS", "lvm2-pv": "LVM2_member", "zfs": "zfs_member", "bluestore": "ceph_bluestore"}[kind]
	if other != "" {
		return other
	}
	return kind
}

// obey takes over what rules have said.
func (d *Device) obey(said rules.Result, accounts Accounts) {
	d.Env, d.Links, d.Priority = maps.Clone(said.Env), said.Links, said.Priority
	d.Problems = said.Problems
	d.tidy()
	if d.Node == "" {
		d.Links = nil
		return
	}
	set := func(to *int, known map[string]int, what, name string) {
		if name == "" {
			return
		}
		id, err := find(known, what, name)
		if err != nil {
			d.Problems = append(d.Problems, err.Error())
			return
		}
		*to = id
		if d.Mode == 0 {
			d.Mode = 0o660
		}
	}
	set(&d.UID, accounts.Users, "user", said.Owner)
	set(&d.GID, accounts.Groups, "group", said.Group)
	if mode, err := strconv.ParseUint(said.Mode, 8, 12); err == nil && mode != 0 {
		d.Mode = uint32(mode)
	}
}
