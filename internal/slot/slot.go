// Package slot decides what is on the EFI system partition: the boot loader's
// entries for the two slots, and the kernel image of each.
//
// It is pure logic over a handful of files: Read tells what is there, Fill,
// Activate, MarkGood and Rollback say what to do (Steps), Apply does it. It
// mounts nothing and writes no root partition. Files has two backends here, a
// mounted folder (Dir) and memory (Memory); package mtools is one for tests.
//
// The loader is systemd-boot. It starts the first of its entries in the order
// of Less: the newest generation that has tries left. An entry that is being
// tried says in its name how often it still may be started; the loader counts
// down before it starts it, and what has no tries left comes last. No entry is
// ever made the default by name: the loader would then start it without
// counting.
//
// Nothing of a running slot is changed but the name of its entry, once it has
// proved good; every other change happens to the other slot, in an order in
// which a loss of power at any point leaves the running slot to boot from.
// Functions keep no state; one process at a time may change a partition.
package slot

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"talos/internal/verity"
)

// ID names a slot.
type ID string

// The two slots.
const (
	A ID = "A"
	B ID = "B"
)

// Other is the slot that this one is not.
func (id ID) Other() ID {
	if id == A {
		return B
	}
	return A
}

// RootLabel is the label of the slot's root partition.
func (id ID) RootLabel() string { return "ROOT-" + string(id) }

// KernelPath is where the slot's kernel image is.
func (id ID) KernelPath() string { return kernelDir + "/" + string(id) + ".efi" }

// Paths on the EFI system partition.
const (
	EntriesDir   = "loader/entries"
	LoaderConfig = "loader/loader.conf"
	KeysDir      = "loader/keys/auto" // keys to enrol for Secure Boot

	kernelDir = "EFI/talos"
)

// LoaderPaths are where the boot loader is: where firmware looks on a medium
// that it knows nothing of, and under its own name.
func LoaderPaths() []string {
	return []string{"EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi"}
}

// Image describes a kernel image to the boot loader.
type Image struct {
	Title   string
	Version string
	// Options, if not empty, are used in place of the command line in the
	// image. Secure Boot makes the image ignore them.
	Options string
}

// Entry is what the boot loader may start.
type Entry struct {
	Image
	Slot       ID
	Generation uint32 // the greatest is the newest
	// Tries is nil once the slot is good.
	Tries *Tries
}

// Tries counts the starts of an entry that has not proved good.
type Tries struct {
	Left int
	Done int
}

// Exhausted says whether the loader starts it only for want of another.
func (e Entry) Exhausted() bool { return e.Tries != nil && e.Tries.Left == 0 }

// Name is the name of the entry's file.
func (e Entry) Name() string {
	name := namePrefix + string(e.Slot)
	if e.Tries != nil {
		name += "+" + strconv.Itoa(e.Tries.Left)
		if e.Tries.Done > 0 {
			name += "-" + strconv.Itoa(e.Tries.Done)
		}
	}
	return name + nameSuffix
}

func (e Entry) path() string { return EntriesDir + "/" + e.Name() }

const (
	namePrefix = "talos-"
	nameSuffix = ".conf"
	keyPrefix  = "talos-"
	maxTries   = 99
	maxContent = 4096 // bytes; the kernel takes half of that as its command line
)

// Content is the text of the entry's file: type #1 of the Boot Loader
// Specification.
func (e Entry) Content() string {
	text := fmt.Sprintf("title %s\nversion %s\nsort-key %s\nefi /%s\n", e.Title, e.Version, sortKey(e.Generation), e.Slot.KernelPath())
	if e.Options != "" {
		text += "options " + e.Options + "\n"
	}
	return text
}

// sortKey turns generations around: the loader takes the least key first.
func sortKey(generation uint32) string {
	return fmt.Sprintf("%s%010d", keyPrefix, math.MaxUint32-generation)
}

// entryName is our names, in whatever case a FAT driver gives them.
var entryName = regexp.MustCompile(`(?i)^talos-([AB])(?:\+([0-9]{1,2})(?:-([0-9]{1,2}))?)?\.conf$`)

// ParseName reads the name of an entry's file; false if it is not one of ours.
func ParseName(name string) (ID, *Tries, bool) {
	m := entryName.FindStringSubmatch(name)
	if m == nil {
		return "", nil, false
	}
	id := ID(strings.ToUpper(m[1]))
	if m[2] == "" {
		return id, nil, true
	}
	left, _ := strconv.Atoi(m[2]) // two digits
	done, _ := strconv.Atoi(m[3]) // or none
	return id, &Tries{Left: left, Done: done}, true
}

// Parse reads an entry by its file's name and content.
func Parse(name string, content []byte) (Entry, error) {
	id, tries, ok := ParseName(name)
	if !ok {
		return Entry{}, fmt.Errorf("boot entry %q: not a name that we give", name)
	}
	e := Entry{Slot: id, Tries: tries}
	var key, efi string
	for line := range strings.Lines(string(content)) {
		field, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		switch field {
		case "title":
			e.Title = value
		case "version":
			e.Version = value
		case "sort-key":
			key = value
		case "options": // of several lines the loader makes one
			e.Options = strings.TrimSpace(e.Options + " " + value)
		case "efi":
			efi = value
		}
	}
	if want := "/" + id.KernelPath(); !strings.EqualFold(efi, want) {
		return Entry{}, fmt.Errorf("boot entry %q: starts %q, want %q", name, efi, want)
	}
	digits, ok := strings.CutPrefix(key, keyPrefix)
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || len(digits) != 10 {
		return Entry{}, fmt.Errorf("boot entry %q: sort-key %q: want %q and ten digits", name, key, keyPrefix)
	}
	e.Generation = math.MaxUint32 - uint32(n)
	return e, nil
}

// Less orders entries as the loader does (boot_entry_compare of systemd-boot):
// the least is started.
func Less(a, b Entry) int {
	return cmp.Or(
		compareBool(a.Exhausted(), b.Exhausted()),
		cmp.Compare(b.Generation, a.Generation),
		cmp.Compare(b.Slot, a.Slot),
		compareBool(a.Tries != nil, b.Tries != nil),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Current is the slot that root runs from: the one whose root partition has the
// id that the hash gives. ids are the ids of the root partitions as GPT has
// them. A root from elsewhere, an ISO or the network, is in neither slot.
func Current(root verity.Root, ids map[ID]string) (ID, bool, error) {
	var in []ID
	for _, id := range []ID{A, B} {
		if strings.EqualFold(ids[id], root.PartitionID()) {
			in = append(in, id)
		}
	}
	switch len(in) {
	case 0:
		return "", false, nil
	case 1:
		return in[0], true, nil
	}
	return "", false, fmt.Errorf("root %v is in both slots", root)
}
