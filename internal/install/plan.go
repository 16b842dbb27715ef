// Package install writes the system onto a disk.
//
// MakePlan chooses the disk and says what will be written, or why it can't be,
// before anything is; it is pure, and Survey is what feeds it. Execute does it,
// on a disk of this machine, and Write on anything that stands for one, such as
// the file of a disk image or what a test records.
//
// Nothing boots from the disk before all is there: the first sector is taken
// away first, the last write of all is the first sector with the partition
// table's mark. What is between is written straight to its place, read back
// past the cache, and compared; the system with its root hash. So a loss of
// power leaves a disk that is not ours, one that says that an installation was
// not finished, or an installed one, configuration included.
//
// Which system is written, and with what configuration, is the caller's
// business. The package keeps no state; one process at a time writes to a disk.
package install

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"talos/config"
	"talos/internal/disk"
	"talos/internal/wipe"
)

// Request is what the user wants.
type Request struct {
	Disk     string // the device, or one of its links below /dev/disk
	Selector *config.InstallDiskSelector
	Wipe     bool // what is on it may be lost
}

// FromConfig is what machine.install asks for.
func FromConfig(c *config.Install) Request {
	if c == nil {
		return Request{}
	}
	return Request{Disk: c.Disk, Selector: c.DiskSelector, Wipe: c.Wipe != nil && *c.Wipe}
}

// Candidate is a disk and what is on it.
type Candidate struct {
	disk.Disk
	Found      []Found // what would be lost
	Unfinished bool    // an installation was begun on it
	Boot       bool    // the running system came from it
}

// Found is something on a disk: a file system, a partition, a mark of something
// else.
type Found struct {
	Partition int    `json:"partition,omitempty"` // 0: the disk itself
	Label     string `json:"label,omitempty"`
	Kind      string `json:"kind,omitempty"`
	Size      int64  `json:"size,omitempty"` // bytes
}

func (f Found) String() string {
	kind := f.Kind
	if kind == "" {
		kind = "something that is not known"
	}
	if f.Partition == 0 {
		return kind
	}
	if f.Kind == "" {
		kind = "empty or not known"
	}
	label := ""
	if f.Label != "" {
		label = " " + f.Label
	}
	return fmt.Sprintf("partition %d%s (%s, %s)", f.Partition, label, disk.Pretty(uint64(f.Size)), kind)
}

// Plan is what will be done. It is shown before anything is written.
type Plan struct {
	Disk       Target      `json:"disk"`
	Found      []Found     `json:"found,omitempty"` // what is on the disk, all of which is lost
	Partitions []Partition `json:"partitions"`
	Wipe       bool        `json:"wipe"`
	Unfinished bool        `json:"unfinished,omitempty"`
}

// Target is the disk, with all that tells it from others.
type Target struct {
	Path       string `json:"path"`
	Size       int64  `json:"size"`       // bytes
	SectorSize int    `json:"sectorSize"` // bytes
	Model      string `json:"model,omitempty"`
	Serial     string `json:"serial,omitempty"`
	WWID       string `json:"wwid,omitempty"`
	Transport  string `json:"transport,omitempty"`
	BusPath    string `json:"busPath,omitempty"`
}

// Partition is what will be on the disk.
type Partition struct {
	Label string `json:"label"`
	Size  int64  `json:"size"` // bytes; 0 is the rest
	Holds string `json:"holds"`
}

// String is the plan in words, a line per fact.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "install on %s\n", p.Disk)
	switch {
	case p.Unfinished:
		b.WriteString("  on it: an installation that was not finished\n")
	case len(p.Found) == 0:
		b.WriteString("  on it: nothing\n")
	}
	for _, f := range p.Found {
		fmt.Fprintf(&b, "  lost: %v\n", f)
	}
	for _, w := range p.Partitions {
		size := "the rest"
		if w.Size > 0 {
			size = disk.Pretty(uint64(w.Size))
		}
		fmt.Fprintf(&b, "  written: %s (%s): %s\n", w.Label, size, w.Holds)
	}
	return b.String()
}

func (t Target) String() string {
	facts := []string{disk.Pretty(uint64(t.Size))}
	for _, f := range []struct{ name, value string }{{"", t.Model}, {"serial ", t.Serial}, {"wwid ", t.WWID}, {"", t.Transport}} {
		if f.value != "" {
			facts = append(facts, f.name+f.value)
		}
	}
	return t.Path + " (" + strings.Join(facts, ", ") + ")"
}

func target(d disk.Disk) Target {
	return Target{
		Path: d.DevPath, Size: int64(d.Size), SectorSize: int(d.SectorSize),
		Model: d.Model, Serial: d.Serial, WWID: d.WWID, Transport: d.Transport, BusPath: d.BusPath,
	}
}

// MakePlan chooses the disk. It touches nothing.
func MakePlan(disks []Candidate, r Request) (Plan, error) {
	disks = slices.DeleteFunc(slices.Clone(disks), func(c Candidate) bool { return !c.Physical() })
	c, err := choose(disks, r)
	if err == nil {
		err = suits(c, r.Wipe)
	}
	if err != nil {
		return Plan{}, fmt.Errorf("install: %w", err)
	}
	p := Plan{Disk: target(c.Disk), Found: c.Found, Wipe: r.Wipe, Unfinished: c.Unfinished}
	for _, w := range parts(int(c.SectorSize)) {
		p.Partitions = append(p.Partitions, Partition{w.label, w.size, w.holds})
	}
	p.Partitions = append(p.Partitions, Partition{wipe.Ephemeral, 0, "what pods, images and logs need; made at the first boot"})
	return p, nil
}

// choose finds the one disk that the request means.
func choose(disks []Candidate, r Request) (Candidate, error) {
	switch {
	case len(disks) == 0:
		return Candidate{}, errors.New("this machine has no disk")
	case r.Selector != nil && *r.Selector != (config.InstallDiskSelector{}):
		return meant(disks, r.Selector)
	case r.Disk == "":
		return Candidate{}, fmt.Errorf("machine.install says neither disk nor diskSelector; there are: %s", listed(disks))
	}
	for _, c := range disks {
		if c.DevPath == r.Disk || slices.Contains(c.Symlinks, r.Disk) {
			return c, nil
		}
	}
	return Candidate{}, fmt.Errorf("machine.install.disk: there is no disk %s; there are: %s", r.Disk, listed(disks))
}

// meant finds the one disk that matches. The medium that we came from is none
// of those meant, unless no other matches.
func meant(disks []Candidate, s *config.InstallDiskSelector) (Candidate, error) {
	tests, err := matchers(s)
	if err != nil {
		return Candidate{}, fmt.Errorf("machine.install.diskSelector: %w", err)
	}
	var words []string
	for _, m := range tests {
		words = append(words, m.text)
	}
	found, err := selected(disks, tests)
	if err != nil {
		return Candidate{}, fmt.Errorf("machine.install.diskSelector: %w", err)
	}
	if others := slices.DeleteFunc(slices.Clone(found), func(c Candidate) bool { return c.Boot }); len(others) > 0 {
		found = others
	}
	what := strings.Join(words, ", ")
	switch len(found) {
	case 0:
		return Candidate{}, fmt.Errorf("machine.install.diskSelector: no disk has %s; there are: %s", what, listed(disks))
	case 1:
		return found[0], nil
	}
	return Candidate{}, fmt.Errorf("machine.install.diskSelector: %d disks have %s, and one must be meant: %s", len(found), what, listed(found))
}

// suits says why a disk can't be installed on.
func suits(c Candidate, wipe bool) error {
	t := target(c.Disk)
	switch least := MinSize(t.SectorSize); {
	case c.Boot:
		return fmt.Errorf("%v is what this system was started from", t)
	case c.ReadOnly:
		return fmt.Errorf("%v is read-only", t)
	case t.SectorSize < 512 || t.SectorSize > 4096:
		return fmt.Errorf("%v has sectors of %d bytes, want 512 to 4096", t, t.SectorSize)
	case t.Size < least:
		return fmt.Errorf("%v is too small: at least %d bytes are needed (%s), it has %d", t, least, disk.Pretty(uint64(least)), t.Size)
	case len(c.Found) > 0 && !c.Unfinished && !wipe:
		return fmt.Errorf("%v is not empty: %s; set machine.install.wipe to lose that", t, contents(c.Found))
	}
	return nil
}

// contents says what is on a disk in one line.
func contents(found []Found) string {
	var out []string
	if installed(found) {
		out = append(out, "an earlier installation")
	}
	for _, f := range found {
		out = append(out, f.String())
	}
	return strings.Join(out, ", ")
}

// installed says whether that is a system disk.
func installed(found []Found) bool {
	for _, p := range parts(512) {
		if !slices.ContainsFunc(found, func(f Found) bool { return f.Label == p.label }) {
			return false
		}
	}
	return true
}

func listed(disks []Candidate) string {
	var out []string
	for _, c := range disks {
		out = append(out, target(c.Disk).String())
	}
	return strings.Join(out, "; ")
}
