package udevd

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"talos/internal/disk"
	"talos/internal/linux/uevent"
)

// Key identifies a device for as long as it is plugged in, whatever its name.
type Key string

// keyOf is made of the number of a node or a link; of others, of their path.
func keyOf(e uevent.Event) Key {
	env := e.Env
	switch {
	case e.Subsystem == "net" && env["IFINDEX"] != "":
		return Key("n" + env["IFINDEX"])
	case env["MAJOR"] != "" && env["MINOR"] != "" && e.Subsystem == "block":
		return Key("b" + env["MAJOR"] + ":" + env["MINOR"])
	case env["MAJOR"] != "" && env["MINOR"] != "":
		return Key("c" + env["MAJOR"] + ":" + env["MINOR"])
	}
	return Key(e.DevPath)
}

// Device is what is known of a device.
type Device struct {
	Key       Key
	Path      string // in sysfs, from "/devices/" on
	Subsystem string
	Node      string // below /dev, such as "sda1" or "net/tun"; empty if it has none
	Major     uint32
	Minor     uint32
	Action    uevent.Action     // what happened to it last
	Env       map[string]string // properties: the kernel's, ours and those of rules
	Links     []string          // names below /dev that it claims, sorted
	Priority  int               // of its claims
	Order     uint64            // the lower, the longer it has been there
	Mode      uint32            // of the node, with UID and GID; 0 leaves it alone
	UID, GID  int
	Probe     *disk.Device // what is on a block device, if that is known
	ProbeErr  string       // why it is not
	Changes   int          // counts the events that changed something
	Problems  []string     // of rules that could not be followed
}

// Partition says whether a block device is a partition.
func (d Device) Partition() bool { return d.Env["DEVTYPE"] == "partition" }

// number reads a property that is a small number; 0 if it is none.
func number(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// DB is all devices that have a node or are network links. It is used by one
// goroutine.
type DB struct {
	devices map[Key]Device
	claims  map[string]map[Key]bool // who claims a link
	count   uint64
}

// NewDB makes an empty database.
func NewDB() *DB {
	return &DB{devices: map[Key]Device{}, claims: map[string]map[Key]bool{}}
}

// Get finds a device.
func (db *DB) Get(k Key) (Device, bool) {
	d, ok := db.devices[k]
	return d, ok
}

// Put writes a device down; one that is new is the youngest.
func (db *DB) Put(d Device) {
	if _, known := db.devices[d.Key]; !known {
		db.count++
	}
	db.drop(d.Key)
	db.devices[d.Key] = d
	for _, l := range d.Links {
		if db.claims[l] == nil {
			db.claims[l] = map[Key]bool{}
		}
		db.claims[l][d.Key] = true
	}
}

// Delete forgets a device.
func (db *DB) Delete(k Key) {
	db.drop(k)
	delete(db.devices, k)
}

func (db *DB) drop(k Key) {
	for _, l := range db.devices[k].Links {
		if delete(db.claims[l], k); len(db.claims[l]) == 0 {
			delete(db.claims, l)
		}
	}
}

// All lists the devices, the oldest first.
func (db *DB) All() []Device {
	return slices.SortedFunc(maps.Values(db.devices), older)
}

// older orders by age.
func older(a, b Device) int {
	return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Path, b.Path))
}

// owner is the device whose claim to a link counts, out of those in the
// database and with one of them replaced: the highest priority, and among equals
// the one that has been there longest. So nothing that is plugged in later takes
// a name away, unless a rule says so.
func (db *DB) owner(link string, instead Device) (Device, bool) {
	var best Device
	found := false
	consider := func(d Device) {
		if c := cmp.Compare(best.Priority, d.Priority); !found || c < 0 || c == 0 && older(d, best) < 0 {
			best, found = d, true
		}
	}
	for k := range db.claims[link] {
		if k != instead.Key {
			consider(db.devices[k])
		}
	}
	if slices.Contains(instead.Links, link) {
		consider(instead)
	}
	return best, found
}
