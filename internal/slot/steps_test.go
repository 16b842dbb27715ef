package slot

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// image is a kernel image of so many letters: one that is cut is another.
func image(version string) []byte { return []byte(strings.Repeat(version, 100)) }

// installed is a disk after the first installation.
func installed(t *testing.T) Memory {
	t.Helper()
	m := Memory{}
	change(t, m, func(s State) ([]Step, error) { return Fill(s, "", A, image("v1")) })
	change(t, m, func(s State) ([]Step, error) { return Activate(s, "", A, Image{Title: "Talos", Version: "v1"}, 0) })
	return m
}

func read(t *testing.T, f Files) State {
	t.Helper()
	s, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func change(t *testing.T, f Files, plan func(State) ([]Step, error)) []Step {
	t.Helper()
	steps, err := plan(read(t, f))
	if err == nil {
		err = Apply(f, steps)
	}
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// upgrade fills and activates the slot that is not running.
func upgrade(t *testing.T, f Files, running ID, version string, tries int) {
	t.Helper()
	change(t, f, func(s State) ([]Step, error) { return Fill(s, running, running.Other(), image(version)) })
	change(t, f, func(s State) ([]Step, error) {
		return Activate(s, running, running.Other(), Image{Title: "Talos", Version: version}, tries)
	})
}

// start is the boot loader, told again from its manual and without our code:
// of the files that end in .conf and name an image that is there, those with
// tries left come first, then the least sort key, then the greatest version;
// the name counts the start.
func start(m Memory) (ID, string) {
	type found struct{ name, key, version, efi string }
	var all []found
	for name, text := range m {
		if path.Dir(name) != "loader/entries" || path.Ext(name) != ".conf" {
			continue
		}
		f := found{name: name}
		for _, line := range strings.Split(string(text), "\n") {
			key, value, _ := strings.Cut(line, " ")
			switch key {
			case "sort-key":
				f.key = value
			case "version":
				f.version = value
			case "efi":
				f.efi = strings.TrimPrefix(value, "/")
			}
		}
		if _, ok := m[f.efi]; ok {
			all = append(all, f)
		}
	}
	if len(all) == 0 {
		return "", ""
	}
	used := func(f found) int { return strings.Count(f.name, "+0") }
	best := slices.MinFunc(all, func(a, b found) int {
		if used(a) != used(b) {
			return used(a) - used(b)
		}
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		if c := strings.Compare(b.version, a.version); c != 0 {
			return c
		}
		return len(a.name) - len(b.name)
	})
	stem, counter, counted := strings.Cut(strings.TrimSuffix(best.name, ".conf"), "+")
	if counted {
		var left, done int
		if n, _ := fmt.Sscanf(counter, "%d-%d", &left, &done); n > 0 && left > 0 {
			m[fmt.Sprintf("%s+%d-%d.conf", stem, left-1, done+1)] = m[best.name]
			delete(m, best.name)
		}
	}
	return ID(strings.TrimSuffix(path.Base(best.efi), ".efi")), string(m[best.efi])
}

// starts are the versions that so many boots in a row start.
func starts(m Memory, n int) string {
	var out []string
	for range n {
		id, kernel := start(m)
		if len(kernel) != len(image("v1")) || kernel[len(kernel)-1] == 0 {
			kernel = "damaged: "
		}
		out = append(out, string(id)+" "+kernel[:2])
	}
	return strings.Join(out, ", ")
}

// TestLife: installation, an upgrade that fails, one that succeeds, back again.
func TestLife(t *testing.T) {
	m := installed(t)
	if got, want := starts(m, 2), "A v1, A v1"; got != want {
		t.Errorf("installed: %s, want %s", got, want)
	}
	upgrade(t, m, A, "v2", 3)
	if got, want := starts(m, 5), "B v2, B v2, B v2, A v1, A v1"; got != want {
		t.Errorf("never good: %s, want %s", got, want)
	}
	if s := read(t, m); len(s.Entries) != 2 || !s.Entries[1].Exhausted() || s.Entries[1].Tries.Done != 3 {
		t.Errorf("never good: %+v, want the second to have used its tries", s.Entries)
	}
	if _, err := Rollback(read(t, m), A); err == nil || !strings.Contains(err.Error(), "v2 was started there 3 times and never proved good") {
		t.Errorf("Rollback to what was never good = %v", err)
	}

	upgrade(t, m, A, "v3", 3)
	if got, want := starts(m, 2), "B v3, B v3"; got != want {
		t.Errorf("upgraded: %s, want %s", got, want)
	}
	change(t, m, func(s State) ([]Step, error) { return MarkGood(s, B) })
	if got, want := starts(m, 4), "B v3, B v3, B v3, B v3"; got != want {
		t.Errorf("good: %s, want %s", got, want)
	}
	if steps := change(t, m, func(s State) ([]Step, error) { return MarkGood(s, B) }); len(steps) != 0 {
		t.Errorf("MarkGood again = %v, want nothing to do", steps)
	}

	change(t, m, func(s State) ([]Step, error) { return Rollback(s, B) })
	if got, want := starts(m, 2), "A v1, A v1"; got != want {
		t.Errorf("rolled back: %s, want %s", got, want)
	}
	if steps := change(t, m, func(s State) ([]Step, error) { return Rollback(s, B) }); len(steps) != 0 {
		t.Errorf("Rollback again = %v, want nothing to do", steps)
	}
	upgrade(t, m, A, "v0", 1) // older than all, and newer as a generation
	if got, want := starts(m, 3), "B v0, A v1, A v1"; got != want {
		t.Errorf("downgraded: %s, want %s", got, want)
	}
}

// torn are the disks that a loss of power during a step may leave. What came
// before it was synced.
func torn(before Memory, s Step) []Memory {
	var out []Memory
	add := func(edit func(Memory)) {
		m := maps.Clone(before)
		edit(m)
		out = append(out, m)
	}
	switch s.Op {
	case Write:
		for _, n := range []int{0, 1, len(s.Data) / 2, len(s.Data) - 1} {
			add(func(m Memory) { m[s.Path] = slices.Clone(s.Data[:n]) })
			add(func(m Memory) { // the length, but not all of the content
				m[s.Path] = append(slices.Clone(s.Data[:n]), make([]byte, len(s.Data)-n)...)
			})
		}
		add(func(m Memory) { delete(m, s.Path) })
	case Rename:
		add(func(m Memory) { m[s.To] = m[s.Path] }) // the new name is there before the old one is gone
	}
	return append(out, maps.Clone(before))
}

// TestPowerCut: a cut at any point of any change leaves a disk that starts
// whole images only: the one that ran before, or after the last step the new
// one. The change can then be made again.
func TestPowerCut(t *testing.T) {
	fill := func(running ID, version string) func(State) ([]Step, error) {
		return func(s State) ([]Step, error) { return Fill(s, running, running.Other(), image(version)) }
	}
	activate := func(running ID, version string) func(State) ([]Step, error) {
		return func(s State) ([]Step, error) {
			return Activate(s, running, running.Other(), Image{Title: "Talos", Version: version}, 2)
		}
	}
	good := func(id ID) func(State) ([]Step, error) {
		return func(s State) ([]Step, error) { return MarkGood(s, id) }
	}
	for _, tt := range []struct {
		name      string
		prepare   func(m Memory)
		plan      func(State) ([]Step, error)
		old, done string // what three boots start
	}{
		{"fill the empty slot", func(Memory) {}, fill(A, "v2"), "A v1, A v1, A v1", "A v1, A v1, A v1"},
		{"fill a slot that failed", func(m Memory) { upgrade(t, m, A, "v2", 1); starts(m, 2) }, fill(A, "v3"), "A v1, A v1, A v1", "A v1, A v1, A v1"},
		{"fill the older slot", func(m Memory) { upgrade(t, m, A, "v2", 1); start(m); change(t, m, good(B)) }, fill(B, "v3"), "B v2, B v2, B v2", "B v2, B v2, B v2"},
		{"fill a slot that is next", func(m Memory) { upgrade(t, m, A, "v2", 2) }, fill(A, "v3"), "B v2, B v2, A v1", "A v1, A v1, A v1"},
		{"activate", func(m Memory) { change(t, m, fill(A, "v2")) }, activate(A, "v2"), "A v1, A v1, A v1", "B v2, B v2, A v1"},
		{"mark good", func(m Memory) { upgrade(t, m, A, "v2", 2); start(m) }, good(B), "B v2, A v1, A v1", "B v2, B v2, B v2"},
		{"roll back", func(m Memory) { upgrade(t, m, A, "v2", 1); start(m); change(t, m, good(B)) },
			func(s State) ([]Step, error) { return Rollback(s, B) }, "B v2, B v2, B v2", "A v1, A v1, A v1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := installed(t)
			tt.prepare(m)
			steps, err := tt.plan(read(t, m))
			if err != nil || len(steps) == 0 {
				t.Fatalf("steps = %v, %v", steps, err)
			}
			for _, step := range steps {
				for i, cut := range torn(m, step) {
					again := maps.Clone(cut)
					if got := starts(maps.Clone(cut), 3); got != tt.old && got != tt.done {
						t.Errorf("cut %d in %v: starts %s, want %s or %s", i, step, got, tt.old, tt.done)
					}
					for _, e := range read(t, cut).Entries {
						if kernel := cut[e.Slot.KernelPath()]; len(kernel) != len(image("v1")) || kernel[len(kernel)-1] == 0 {
							t.Errorf("cut %d in %v: entry %s names a damaged image", i, step, e.Name())
						}
					}
					change(t, again, tt.plan)
					if got := starts(again, 3); got != tt.done {
						t.Errorf("cut %d in %v, and made again: starts %s, want %s", i, step, got, tt.done)
					}
				}
				if err := Apply(m, []Step{step}); err != nil {
					t.Fatal(err)
				}
			}
			if got := starts(m, 3); got != tt.done {
				t.Errorf("done: starts %s, want %s", got, tt.done)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	m := installed(t)
	s := read(t, m)
	full := read(t, m)
	full.Entries[0].Generation = math.MaxUint32
	full.Kernels = append(full.Kernels, B)
	filled := read(t, m)
	filled.Kernels = append(filled.Kernels, B)
	for name, try := range map[string]func() ([]Step, error){
		"fill the running slot":     func() ([]Step, error) { return Fill(s, A, A, nil) },
		"activate the running slot": func() ([]Step, error) { return Activate(s, A, A, Image{Title: "T", Version: "v"}, 1) },
		"activate an empty slot":    func() ([]Step, error) { return Activate(s, A, B, Image{Title: "T", Version: "v"}, 1) },
		"too many tries":            func() ([]Step, error) { return Activate(filled, A, B, Image{Title: "T", Version: "v"}, 100) },
		"less than no tries":        func() ([]Step, error) { return Activate(filled, A, B, Image{Title: "T", Version: "v"}, -1) },
		"a title of two lines":      func() ([]Step, error) { return Activate(filled, A, B, Image{Title: "T\nefi /x", Version: "v"}, 1) },
		"options that are too long": func() ([]Step, error) { return Activate(filled, A, B, Image{Options: strings.Repeat("x", 5000)}, 1) },
		"options of two lines": func() ([]Step, error) {
			return Activate(filled, A, B, Image{Options: "a\nefi /x"}, 1)
		},
		"no newer generation":     func() ([]Step, error) { return Activate(full, A, B, Image{Title: "T", Version: "v"}, 1) },
		"mark an empty slot good": func() ([]Step, error) { return MarkGood(s, B) },
		"roll back to nothing":    func() ([]Step, error) { return Rollback(s, A) },
	} {
		if steps, err := try(); err == nil {
			t.Errorf("%s = %v, want an error", name, steps)
		}
	}
}

// TestStale: what is not ours stays, what is ours and of no use goes with the
// next Fill, unless it is of the running slot.
func TestStale(t *testing.T) {
	m := installed(t)
	for _, name := range []string{"debian.conf", "talos-B.new", "talos-B+3.conf", "talos-A+1.conf"} {
		m[EntriesDir+"/"+name] = []byte("title x\n")
	}
	s := read(t, m)
	if diff := cmp.Diff([]string{"loader/entries/talos-A+1.conf", "loader/entries/talos-B+3.conf", "loader/entries/talos-B.new"}, s.Stale); diff != "" {
		t.Errorf("stale (-want +got):\n%s", diff)
	}
	change(t, m, func(s State) ([]Step, error) { return Fill(s, A, B, image("v2")) })
	left, err := m.List(EntriesDir)
	if diff := cmp.Diff([]string{"debian.conf", "talos-A+1.conf", "talos-A.conf"}, left); diff != "" || err != nil {
		t.Errorf("left: %v (-want +got):\n%s", err, diff)
	}
}

// liar is a disk that keeps something else than what was written.
type liar struct{ Memory }

func (l liar) Write(name string, data []byte) error {
	return l.Memory.Write(name, append(slices.Clone(data[:len(data)-1]), '?'))
}

func TestReadBack(t *testing.T) {
	steps, err := Fill(State{}, "", A, image("v1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Apply(liar{Memory{}}, steps); err == nil || !strings.Contains(err.Error(), "EFI/talos/A.efi") || !strings.Contains(err.Error(), "not what was written") {
		t.Errorf("Apply on a disk that lies = %v, want it to tell", err)
	}
}
