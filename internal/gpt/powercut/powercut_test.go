package powercut

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestLikeAFile: reads and writes of any place do what a file does.
func TestLikeAFile(t *testing.T) {
	const size = 10*pageSize + 512
	d, want := New(size, 512), make([]byte, size)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		at := rng.Int64N(size)
		n := rng.Int64N(min(3*pageSize, size-at)) + 1
		if rng.IntN(3) == 0 {
			if err := d.Zero(at, n); err != nil {
				t.Fatal(err)
			}
			clear(want[at : at+n])
			continue
		}
		data := bytes.Repeat([]byte{byte(rng.IntN(255) + 1)}, int(n))
		if _, err := d.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
		copy(want[at:], data)
		got := make([]byte, n+5)
		from := max(0, at-5)
		if m, err := d.ReadAt(got, from); !bytes.Equal(got[:m], want[from:from+int64(m)]) || (m < len(got)) != errors.Is(err, io.EOF) {
			t.Fatalf("ReadAt(%d bytes, %d) = %d, %v, differs", len(got), from, m, err)
		}
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := d.Save(name); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); !bytes.Equal(got, want) || err != nil {
		t.Errorf("Save: differs from what was written (%v)", err)
	}
	if _, err := d.WriteAt([]byte("x"), size); err == nil {
		t.Error("a write behind the end succeeded")
	}
}

// TestCuts: what was synced is there, what was not may be, in every part.
func TestCuts(t *testing.T) {
	d := New(1<<20, 512)
	if _, err := d.WriteAt([]byte("old"), 0); err != nil {
		t.Fatal(err)
	}
	d.Record()
	for i, text := range []string{"A", "B", ""} {
		if text == "" {
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := d.WriteAt([]byte(text), int64(i)*512); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Zero(0, 1024); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	d.Cuts(10, func(_ string, syncs int, disk *Disk) {
		b := make([]byte, 1024)
		if _, err := disk.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		b[0], b[1] = max(b[0], '.'), max(b[512], '.')
		seen[string('0'+rune(syncs))+string(b[:2])]++
	})
	for _, want := range []string{"0o.", "0A.", "0oB", "0AB", "1AB", "1.B", "1A.", "1.."} {
		if seen[want] == 0 {
			t.Errorf("cuts left %v, want %s among them", seen, want)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("cuts also left %v", seen)
	}
	if d.Syncs() != 1 {
		t.Errorf("Syncs = %d, want 1", d.Syncs())
	}
}
