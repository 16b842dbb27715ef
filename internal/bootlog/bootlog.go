// Package bootlog keeps what the last boots of a node printed, and how each of
// them ended: nobody can log in to see why a machine has started again.
//
// Every boot has a folder with the logs of its services (package logs writes
// them), a description, and a mark that an orderly way down leaves. What the
// kernel saved in the firmware when it panicked is moved there at the next
// boot. The folder is on EPHEMERAL, and goes with it. A Book is safe for
// concurrent use once it is open.
package bootlog

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"talos/internal/cmdline/redact"
	"talos/internal/linux/atomicfile"
)

// keep is how many boots are kept, the one under way included.
const keep = 5

const (
	description = "boot.json"
	ending      = "ending" // what an orderly way down leaves
	// KernelLog is the name under which the kernel's log is kept, beside those of services.
	KernelLog = "kernel"
)

// Record describes one boot.
type Record struct {
	Number  uint64    `json:"number"`
	ID      string    `json:"id"` // the kernel's
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Ended says how it ended: "reboot", "poweroff", "kernel panic", "watchdog",
	// "power loss or reset"; "" for the one under way.
	Ended string `json:"ended,omitempty"`
}

// Evidence is what the machine remembers of the end of its last boot.
type Evidence struct {
	Pstore   string // folder of the kernel's saved messages; "" where there is none
	Watchdog bool   // the hardware says that its timer has expired
}

// Book is the folder with all boots.
type Book struct {
	dir     string
	records []Record // by number
}

// Open begins the book of a boot: it finds out how the last one ended, removes
// what is older than is kept, and makes a folder for this one.
func Open(dir string, r Record, e Evidence) (*Book, error) {
	b := &Book{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := b.read(); err != nil {
		return nil, err
	}
	if n := len(b.records); n > 0 {
		last := &b.records[n-1]
		r.Number = last.Number
		if last.Ended == "" {
			last.Ended = b.end(*last, e)
			if err := b.write(*last); err != nil {
				return nil, err
			}
		}
	}
	r.Number, r.Ended = r.Number+1, ""
	if err := os.MkdirAll(b.folder(r.Number), 0o700); err != nil {
		return nil, err
	}
	if err := b.write(r); err != nil {
		return nil, err
	}
	b.records = append(b.records, r)
	return b, b.forget()
}

// read finds the boots that are kept. A folder without a description is that of
// a boot which lost its power in its first moment.
func (b *Book) read() error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil || !e.IsDir() {
			continue // not ours
		}
		r := Record{Number: number}
		if data, err := os.ReadFile(filepath.Join(b.folder(number), description)); err == nil {
			if err := json.Unmarshal(data, &r); err != nil || r.Number != number {
				r = Record{Number: number}
			}
		}
		b.records = append(b.records, r)
	}
	slices.SortFunc(b.records, func(x, y Record) int { return cmp.Compare(x.Number, y.Number) })
	return nil
}

func (b *Book) folder(number uint64) string {
	return filepath.Join(b.dir, fmt.Sprintf("%08d", number))
}

func (b *Book) write(r Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.Save(filepath.Join(b.folder(r.Number), description), append(data, '\n'), 0o600)
}

// forget removes the oldest boots.
func (b *Book) forget() error {
	for len(b.records) > keep {
		if err := os.RemoveAll(b.folder(b.records[0].Number)); err != nil {
			return err
		}
		b.records = b.records[1:]
	}
	return nil
}

// Dir is the folder of this boot.
func (b *Book) Dir() string { return b.folder(b.records[len(b.records)-1].Number) }

// Ending notes that the node goes down in order, and what for.
func (b *Book) Ending(what string) error {
	return atomicfile.Save(filepath.Join(b.Dir(), ending), []byte(what+"\n"), 0o600)
}

// Records lists the boots, the one under way last.
func (b *Book) Records() []Record { return slices.Clone(b.records) }

// Past is the folder of an earlier boot: -1 is the one before this.
func (b *Book) Past(boot int) (string, error) {
	i := len(b.records) - 1 + boot
	if boot >= 0 || i < 0 {
		return "", fmt.Errorf("boot %d: this node has the logs of %d earlier boots: %w", boot, len(b.records)-1, fs.ErrNotExist)
	}
	return b.folder(b.records[i].Number), nil
}

// end finds out how a boot ended.
func (b *Book) end(r Record, e Evidence) string {
	panicked := b.rescue(r, e.Pstore)
	noted, err := os.ReadFile(filepath.Join(b.folder(r.Number), ending))
	switch {
	case panicked:
		return "kernel panic"
	case e.Watchdog:
		return "watchdog"
	case err == nil && strings.TrimSpace(string(noted)) != "":
		return strings.TrimSpace(string(noted))
	}
	return "power loss or reset"
}

// Bounds of what the kernel has saved.
const (
	maxSaved  = 256
	maxRecord = 64 << 10
)

// rescue moves what the kernel saved when it panicked to the end of that boot's
// log (Documentation/admin-guide/pstore-blk.rst), and says whether there was any.
// What can't be read stays where it is.
func (b *Book) rescue(r Record, pstore string) bool {
	if pstore == "" {
		return false
	}
	entries, err := os.ReadDir(pstore)
	if err != nil {
		return false
	}
	log, err := os.OpenFile(filepath.Join(b.folder(r.Number), KernelLog+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	defer log.Close()
	panicked := false
	// Parts of one panic are numbered from its end backwards.
	slices.Reverse(entries)
	for i, e := range entries {
		if i == maxSaved || !strings.HasPrefix(e.Name(), "dmesg-") {
			continue
		}
		path := filepath.Join(pstore, e.Name())
		text, err := readSome(path)
		if err == nil {
			_, err = fmt.Fprintf(log, "--- %s, saved by the kernel\n%s\n", e.Name(), redact.Text(strings.TrimRight(text, "\x00\n")))
		}
		if err == nil {
			err = log.Sync()
		}
		if err != nil {
			continue
		}
		panicked = panicked || strings.HasPrefix(text, "Panic") || strings.Contains(text, "Kernel panic")
		// Best effort: firmware has little room, and the next boot tries again.
		_ = os.Remove(path)
	}
	return panicked
}

func readSome(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(data), nil
}
