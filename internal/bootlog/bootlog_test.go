package bootlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir, id string, e Evidence) *Book {
	t.Helper()
	b, err := Open(dir, Record{ID: id, Version: "v1", Started: time.Unix(1, 0).UTC()}, e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFarApart: the newest boot is the one with the greatest number, however far
// that is from the others.
func TestFarApart(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"18446744073709551610", "00000001"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got := open(t, dir, "a", Evidence{}).Records(); len(got) != 3 || got[0].Number != 1 || got[2].Number != 18446744073709551611 {
		t.Errorf("records = %+v, want 1, 18446744073709551610, and the next", got)
	}
}

// TestEnds: each boot is told how the one before it ended.
func TestEnds(t *testing.T) {
	saved := t.TempDir()
	for name, text := range map[string]string{
		"dmesg-efi_pstore-1": "Panic#1 Part1\n<0>Kernel panic - not syncing: the end\n",
		"dmesg-efi_pstore-2": "Panic#1 Part2\n<6>before that\n",
		"console-ramoops-0":  "chatter",
	} {
		if err := os.WriteFile(filepath.Join(saved, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		noted string
		e     Evidence
		want  string
	}{
		{"asked for", "reboot", Evidence{}, "reboot"},
		{"asked for, and the watchdog ended it", "poweroff", Evidence{Watchdog: true}, "watchdog"},
		{"out of the blue", "", Evidence{}, "power loss or reset"},
		{"nothing saved", "", Evidence{Pstore: t.TempDir()}, "power loss or reset"},
		{"panicked", "", Evidence{Pstore: saved}, "kernel panic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "boots")
			first := open(t, dir, "a", Evidence{})
			if c.noted != "" {
				if err := first.Ending(c.noted); err != nil {
					t.Fatal(err)
				}
			}
			second := open(t, dir, "b", c.e)
			got := second.Records()
			if len(got) != 2 || got[0].Ended != c.want || got[0].ID != "a" || got[1].Ended != "" {
				t.Errorf("records = %+v, want the first ended by %q", got, c.want)
			}
			if again := open(t, dir, "c", Evidence{Watchdog: true}); again.Records()[0].Ended != c.want {
				t.Errorf("a boot later the first ended by %q, want %q still", again.Records()[0].Ended, c.want)
			}
		})
	}
	left, err := os.ReadDir(saved)
	if err != nil || len(left) != 1 || left[0].Name() != "console-ramoops-0" {
		t.Errorf("left in the firmware: %v, %v, want what is no message of a panic", left, err)
	}
}

// TestRescue: what the firmware kept is in the log of the boot that ended, its
// parts in order.
func TestRescue(t *testing.T) {
	dir, saved := t.TempDir(), t.TempDir()
	first := open(t, dir, "a", Evidence{})
	log := filepath.Join(first.Dir(), KernelLog+".log")
	if err := os.WriteFile(log, []byte("early\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"dmesg-efi_pstore-17001": "Panic#1 Part1\nlast", "dmesg-efi_pstore-17002": "Panic#1 Part2\ntalos.config.inline=KLUv middle"} {
		if err := os.WriteFile(filepath.Join(saved, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second := open(t, dir, "b", Evidence{Pstore: saved})
	past, err := second.Past(-1)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(past, KernelLog+".log"))
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	if strings.Contains(rest, "KLUv") {
		t.Errorf("the log tells the configuration on the command line:\n%s", rest)
	}
	for _, part := range []string{"early", "middle", "last"} {
		_, after, ok := strings.Cut(rest, part)
		if !ok {
			t.Fatalf("the log is\n%s\nwant early, middle, last in this order", text)
		}
		rest = after
	}
}

func TestKeepsFew(t *testing.T) {
	dir := t.TempDir()
	for range keep + 3 {
		open(t, dir, "x", Evidence{})
	}
	b := open(t, dir, "last", Evidence{})
	if got := len(b.Records()); got != keep {
		t.Errorf("%d boots kept, want %d", got, keep)
	}
	if got := b.Records()[keep-1].Number; got != keep+4 {
		t.Errorf("the boot has number %d, want %d: numbers go on", got, keep+4)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != keep {
		t.Errorf("%d folders, %v, want %d", len(entries), err, keep)
	}
	for _, boot := range []int{-keep, 0, 1} {
		if _, err := b.Past(boot); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Past(%d) = %v, want ErrNotExist", boot, err)
		}
	}
	if _, err := b.Past(1 - keep); err != nil {
		t.Errorf("Past(%d) = %v", 1-keep, err)
	}
}

// TestTorn: a boot whose description was torn has a place, and no more.
func TestTorn(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, "a", Evidence{})
	if err := os.WriteFile(filepath.Join(first.Dir(), description), []byte(`{"number": 77`), 0o600); err != nil {
		t.Fatal(err)
	}
	got := open(t, dir, "b", Evidence{}).Records()
	if len(got) != 2 || got[0].Number != 1 || got[0].ID != "" || got[0].Ended == "" {
		t.Errorf("records = %+v, want number 1 without an id, ended", got)
	}
}
