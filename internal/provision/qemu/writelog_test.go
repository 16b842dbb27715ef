package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"talos/internal/gpt"
)

// qemuIO does to the machine's first disk what the guest could.
func qemuIO(t *testing.T, v VM, command string) {
	t.Helper()
	var said string
	err := v.Command(t.Context(), "human-monitor-command", map[string]any{"command-line": `qemu-io -d device0 "` + command + `"`}, &said)
	if err != nil || strings.Contains(strings.ToLower(said), "error") || strings.Contains(said, "failed") {
		t.Fatalf("%s: %v, %s", command, err, said)
	}
}

// TestReplay records a machine's writes, cuts its power, and finds the disk at
// every flush.
func TestReplay(t *testing.T) {
	v := machine(t)
	dir := t.TempDir()
	v.Disks = []Disk{{Path: filepath.Join(dir, "disk"), Size: 1 << 20, Driver: "scsi", WriteLog: filepath.Join(dir, "log")}}
	start(t, v)
	for _, command := range []string{
		"write -P 0x41 0 1024", "flush", "write -P 0x42 512 1024", "discard 0 512", "flush", "write -P 0x43 4096 512", "flush",
	} {
		qemuIO(t, v, command)
	}
	if err := v.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, b, c, none := strings.Repeat("A", 512), strings.Repeat("B", 512), strings.Repeat("C", 512), strings.Repeat("\x00", 512)
	want := []string{a + a + none, none + b + b, none + b + b}
	var tail []string
	copied := filepath.Join(dir, "copy")
	if err := (Disk{Path: copied, Size: 1 << 20}).ensure(); err != nil {
		t.Fatal(err)
	}
	d, err := gpt.Open(copied, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = Replay(v.Disks[0].WriteLog, d, func(n int) error {
		data, err := os.ReadFile(copied)
		if err != nil {
			return err
		}
		if n > len(want) || string(data[:len(want[n-1])]) != want[n-1] {
			t.Errorf("at flush %d the disk starts with %.1q, %.1q, %.1q", n, data, data[512:], data[1024:])
		}
		tail = append(tail, string(data[4096:4608]))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tail) != 3 || tail[1] != none || tail[2] != c {
		t.Errorf("the last write shows at %d flushes as %.1q", len(tail), tail)
	}
	original, err1 := os.ReadFile(v.Disks[0].Path)
	replayed, err2 := os.ReadFile(copied)
	if err1 != nil || err2 != nil || !bytes.Equal(original, replayed) {
		t.Errorf("the replayed disk is not the disk: %v, %v", err1, err2)
	}
}

// memory is a disk for tests.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > int64(len(m)) {
		return 0, errors.New("beyond the end")
	}
	return copy(m[at:], p), nil
}

func (m memory) Zero(offset, length int64) error {
	clear(m[offset:][:length])
	return nil
}

// recorded is a log of one write of a sector, and a flush.
func recorded() []byte {
	log := make([]byte, 4*512)
	for i, v := range []uint64{writeLogMagic, writeLogVersion, 2, 512} {
		binary.LittleEndian.PutUint64(log[8*i:], v)
	}
	for i, v := range []uint64{3, 1, 0, 512} {
		binary.LittleEndian.PutUint64(log[512+8*i:], v)
	}
	copy(log[1024:1536], bytes.Repeat([]byte("x"), 512))
	binary.LittleEndian.PutUint64(log[1536+16:], logFlush)
	return log
}

func TestReplayRefused(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"empty":                func([]byte) []byte { return nil },
		"other":                func(b []byte) []byte { b[0]++; return b },
		"torn":                 func(b []byte) []byte { return b[:1100] },
		"beyond the end":       func(b []byte) []byte { b[512+2] = 1; return b },
		"far beyond the end":   func(b []byte) []byte { b[512+7] = 0xff; return b },
		"more than there is":   func(b []byte) []byte { b[512+15] = 0xff; return b },
		"sectors of one byte":  func(b []byte) []byte { b[24], b[25] = 1, 0; return b },
		"more entries than is": func(b []byte) []byte { b[16]++; return b },
	} {
		if err := replay(bytes.NewReader(change(recorded())), make(memory, 4096), func(int) error { return nil }); err == nil {
			t.Errorf("%s: replay = nil, want an error", name)
		}
	}
	disk, flushes := make(memory, 4096), 0
	if err := replay(bytes.NewReader(recorded()), disk, func(n int) error { flushes = n; return nil }); err != nil || flushes != 1 || disk[3*512] != 'x' {
		t.Errorf("replay = %v with %d flushes, %q", err, flushes, disk[3*512])
	}
}

func FuzzReplay(f *testing.F) {
	f.Add(recorded())
	f.Fuzz(func(t *testing.T, log []byte) {
		replay(bytes.NewReader(log), make(memory, 4096), func(int) error { return nil }) // no panic, and an end
	})
}
