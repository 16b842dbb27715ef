package install

import (
	"fmt"
	"regexp"
	"strings"

	"talos/config"
	"talos/internal/disk"
	"talos/internal/disk/match"
	"talos/internal/volume"
)

// matcher says whether a disk has a property.
type matcher struct {
	text  string // as the user wrote it: `model "WDC*"`
	match func(Candidate) (bool, error)
}

// matchers are what a selector asks for. All must match.
func matchers(s *config.InstallDiskSelector) ([]matcher, error) {
	var out []matcher
	for _, p := range []struct {
		key, pattern string
		value        func(disk.Disk) string
	}{
		{"name", s.Name, func(d disk.Disk) string { return d.Name }},
		{"model", s.Model, func(d disk.Disk) string { return d.Model }},
		{"serial", s.Serial, func(d disk.Disk) string { return d.Serial }},
		{"modalias", s.Modalias, func(d disk.Disk) string { return d.Modalias }},
		{"uuid", s.UUID, func(d disk.Disk) string { return d.UUID }},
		{"wwid", s.WWID, func(d disk.Disk) string { return d.WWID }},
		{"type", s.Type, func(d disk.Disk) string { return string(d.Type()) }},
		{"busPath", s.BusPath, func(d disk.Disk) string { return d.BusPath }},
	} {
		if p.pattern != "" {
			out = append(out, matcher{fmt.Sprintf("%s %q", p.key, p.pattern), func(c Candidate) (bool, error) { return glob(p.pattern, p.value(c.Disk)), nil }})
		}
	}
	if s.Size != "" {
		test, err := parseSize(s.Size)
		if err != nil {
			return nil, err
		}
		out = append(out, matcher{fmt.Sprintf("size %q", s.Size), func(c Candidate) (bool, error) { return test(c.Size), nil }})
	}
	if s.Match != "" {
		e, err := match.Compile(s.Match)
		if err != nil {
			return nil, fmt.Errorf("match %q: %w", s.Match, err)
		}
		out = append(out, matcher{fmt.Sprintf("match %q", s.Match), func(c Candidate) (bool, error) { return e.Matches(facts(c.Disk), c.Boot) }})
	}
	return out, nil
}

// facts are what an expression may ask of a disk.
func facts(d disk.Disk) match.Facts {
	return match.Facts{
		"dev_path": d.DevPath, "size": d.Size, "pretty_size": disk.Pretty(d.Size), "io_size": uint64(d.IOSize), "sector_size": uint64(d.SectorSize),
		"readonly": d.ReadOnly, "cdrom": d.CDROM, "rotational": d.Rotational,
		"model": d.Model, "firmware_version": d.Firmware, "serial": d.Serial, "modalias": d.Modalias, "wwid": d.WWID, "uuid": d.UUID,
		"bus_path": d.BusPath, "sub_system": d.Subsystem, "transport": d.Transport,
		"secondary_disks": d.Secondaries, "symlinks": d.Symlinks,
	}
}

// selected are the disks that all matchers match.
func selected(disks []Candidate, tests []matcher) ([]Candidate, error) {
	var found []Candidate
next:
	for _, c := range disks {
		for _, m := range tests {
			ok, err := m.match(c)
			if err != nil {
				return nil, fmt.Errorf("%s of %v: %w; there are: %s", m.text, target(c.Disk), err, listed(disks))
			}
			if !ok {
				continue next
			}
		}
		found = append(found, c)
	}
	return found, nil
}

// glob matches * with anything, nothing included, and ? with one character. In
// paths of buses * goes over slashes. Case makes no difference, nor do spaces
// around what the hardware says of itself.
func glob(pattern, value string) bool {
	p, v := []rune(strings.ToLower(pattern)), []rune(strings.ToLower(strings.TrimSpace(value)))
	star, retry := -1, 0
	i, j := 0, 0
	for j < len(v) {
		switch {
		case i < len(p) && p[i] == '*':
			star, retry = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == v[j]):
			i, j = i+1, j+1
		case star >= 0:
			retry++
			i, j = star+1, retry
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

var sizeText = regexp.MustCompile(`^\s*(<=|>=|==|=|<|>)?(.*)$`)

// parseSize reads "4GB", ">= 1TiB" and the like.
func parseSize(s string) (func(uint64) bool, error) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return nil, fmt.Errorf("size %q: want a size, such as 4GB or >= 1TiB", s)
	}
	size, err := volume.ParseSize(m[2])
	if err != nil {
		return nil, err
	}
	want := uint64(size)
	return map[string]func(uint64) bool{
		"":   func(n uint64) bool { return n == want },
		"=":  func(n uint64) bool { return n == want },
		"==": func(n uint64) bool { return n == want },
		"<":  func(n uint64) bool { return n < want },
		"<=": func(n uint64) bool { return n <= want },
		">":  func(n uint64) bool { return n > want },
		">=": func(n uint64) bool { return n >= want },
	}[m[1]], nil
}
