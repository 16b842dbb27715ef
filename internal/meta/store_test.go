package meta

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sector = 512

// write is one sector, or a sync.
type write struct {
	at   int64
	data []byte // nil: a sync
}

// recorder is a device that keeps what was written, sector by sector.
type recorder struct {
	start []byte // what was there at first
	now   []byte
	log   []write
	fail  int // fails the write or sync of this number, counted from 1
	calls int
}

func newRecorder(start []byte) *recorder {
	return &recorder{start: slices.Clone(start), now: slices.Clone(start)}
}

var errDevice = errors.New("input/output error")

func (r *recorder) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(r.now).ReadAt(p, at)
}

func (r *recorder) WriteAt(p []byte, at int64) (int, error) {
	if r.calls++; r.calls == r.fail {
		return 0, errDevice
	}
	copy(r.now[at:], p)
	for i := 0; i < len(p); i += sector {
		r.log = append(r.log, write{at + int64(i), slices.Clone(p[i : i+sector])})
	}
	return len(p), nil
}

func (r *recorder) Sync() error {
	if r.calls++; r.calls == r.fail {
		return errDevice
	}
	r.log = append(r.log, write{})
	return nil
}

// cuts calls see with the device as a loss of power may leave it: what was
// synced, and of what was written since either the first sectors, each number
// of them in steps, or some at random.
func (r *recorder) cuts(step int, see func(name string, device []byte)) {
	disk := slices.Clone(r.start)
	var since []write
	rng := rand.New(rand.NewPCG(1, 2))
	apply := func(which func(int) bool) []byte {
		out := slices.Clone(disk)
		for i, w := range since {
			if which(i) {
				copy(out[w.at:], w.data)
			}
		}
		return out
	}
	for n, w := range append(r.log, write{}) {
		if w.data != nil {
			since = append(since, w)
			continue
		}
		for i := 0; i <= len(since); i += step {
			see(fmt.Sprintf("before sync at %d, first %d", n, i), apply(func(j int) bool { return j < i }))
			see(fmt.Sprintf("before sync at %d, all but first %d", n, i), apply(func(j int) bool { return j >= i }))
		}
		for range 4 {
			see(fmt.Sprintf("before sync at %d, some", n), apply(func(int) bool { return rng.IntN(2) == 0 }))
		}
		disk, since = apply(func(int) bool { return true }), nil
	}
}

var steps = []Values{
	{},
	{UserReserved1: []byte("one")},
	{UserReserved1: bytes.Repeat([]byte("two"), 50000), Upgrade: []byte("B")},
	{},
	{UserReserved2: bytes.Repeat([]byte("three"), 30000)},
}

// equal is cmp.Equal, fast for long values.
func equal(a, b Values) bool { return maps.EqualFunc(a, b, bytes.Equal) }

// setAll makes the store hold v by one change.
func setAll(s *Store, v Values) error {
	return s.change(func(now Values) {
		clear(now)
		for k, b := range v {
			now[k] = b
		}
	})
}

// TestPowerCut: after a cut at any point of a change the values are the old or
// the new ones; and after a second cut, at any point of the change that follows
// the first, they are those that the first had left or the newest.
func TestPowerCut(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4} {
		r := newRecorder(make([]byte, 1<<20))
		s, err := Open(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range steps[1:n] {
			if err := setAll(s, v); err != nil {
				t.Fatal(err)
			}
		}
		r.start, r.log = slices.Clone(r.now), nil
		if err := setAll(s, steps[n]); err != nil {
			t.Fatal(err)
		}
		seen := map[bool]int{}
		r.cuts(64, func(name string, device []byte) {
			after := cutRead(t, name, device, steps[n-1], steps[n])
			seen[equal(after, steps[n])]++
			if seen[equal(after, steps[n])]%24 == 1 { // some of each
				cutAgain(t, name, device, after)
			}
		})
		if seen[false] == 0 || seen[true] == 0 {
			t.Errorf("change %d: cuts left %v, want old and new values both", n, seen)
		}
	}
}

// cutAgain starts the machine after a cut and cuts its next change too.
func cutAgain(t *testing.T, name string, device []byte, before Values) {
	t.Helper()
	r := newRecorder(device)
	s, err := Open(r)
	if err != nil {
		t.Fatal(err)
	}
	next := Values{StagedImage: bytes.Repeat([]byte("next"), 20000)}
	if err := setAll(s, next); err != nil {
		t.Fatal(err)
	}
	r.cuts(170, func(second string, device []byte) { cutRead(t, name+"; "+second, device, before, next) })
}

func cutRead(t *testing.T, name string, device []byte, before, after Values) Values {
	t.Helper()
	s, err := Open(newRecorder(device))
	if err != nil {
		t.Fatalf("%s: Open = %v", name, err)
	}
	if got := s.All(); equal(got, before) || equal(got, after) {
		return got
	}
	t.Fatalf("%s: the values are neither the old nor the new ones", name)
	return nil
}

// TestFailedWrites: a device that fails once leaves values that were or will
// be, and the next change succeeds.
func TestFailedWrites(t *testing.T) {
	for fail := 1; fail <= 4; fail++ {
		r := newRecorder(make([]byte, 1<<20))
		s, err := Open(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Set(Upgrade, []byte("A")); err != nil {
			t.Fatal(err)
		}
		r.calls, r.fail = 0, fail
		if err := s.Set(Upgrade, []byte("B")); !errors.Is(err, errDevice) {
			t.Errorf("write %d fails: Set = %v, want the device's error", fail, err)
		}
		if err := s.Set(StagedImage, []byte("x")); err != nil {
			t.Errorf("write %d failed: the next Set = %v", fail, err)
		}
		again, err := Open(r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.All(), again.All()); diff != "" {
			t.Errorf("write %d failed: the device (+) differs from the store (-):\n%s", fail, diff)
		}
	}
}

func TestBothCopiesDamaged(t *testing.T) {
	r := newRecorder(make([]byte, 1<<20))
	s, err := Open(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set(Upgrade, []byte("A")); err != nil {
		t.Fatal(err)
	}
	r.now[10]++
	if s, err := Open(r); err != nil || len(s.All()) != 1 {
		t.Errorf("first copy damaged: Open = %v, want the value of the second", err)
	}
	r.now[CopySize+10]++
	if _, err := Open(r); err == nil {
		t.Error("both copies damaged: Open succeeded")
	}
}

// TestAttach: what was set in memory joins what is on the device, and wins.
func TestAttach(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta")
	if _, err := OpenFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenFile of what is not there = %v, want ErrNotExist", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	disk, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[Key]string{Upgrade: "A", StagedImage: "kept"} {
		if err := disk.Set(k, []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	s := New()
	value := []byte("B")
	if err := s.Set(Upgrade, value); err != nil {
		t.Fatal(err)
	}
	value[0] = 'C' // the store has its own
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Attach(f); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(Key(0x42)); err != nil { // not there
		t.Fatal(err)
	}
	want := Values{Upgrade: []byte("B"), StagedImage: []byte("kept")}
	again, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again.All()); diff != "" {
		t.Errorf("on the device (-want +got):\n%s", diff)
	}
	if v, ok := s.Get(Upgrade); string(v) != "B" || !ok {
		t.Errorf("Get = %q, %t", v, ok)
	}
	if err := s.Attach(f); err == nil {
		t.Error("a second Attach succeeded")
	}
	if err := again.Clear(); err != nil || len(again.All()) != 0 {
		t.Errorf("after Clear: %v, %v", again.All(), err)
	}
	if err := errors.Join(again.Close(), New().Close()); err != nil {
		t.Error(err)
	}
	if err := again.Set(Upgrade, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Set after Close = %v", err)
	}
}
