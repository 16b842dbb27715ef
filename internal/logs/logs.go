// Package logs keeps what the node's services print: for each a file in
// layout.LogDir, bounded, and readers that follow it.
//
// It owns the files and their rotation; who prints what is not its concern. A
// line is stored with the time at which it was received. Writing never blocks
// on readers and never fails: what can't be stored is dropped and counted. A
// Manager is safe for concurrent use.
package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxFile is the size at which a file is rotated; a service keeps two.
	maxFile = 1 << 20
	// maxLine is the longest line; longer ones are broken.
	maxLine = 16 << 10
	// stamp is fixed in width, so that it can be cut off again.
	stamp = "2006-01-02T15:04:05.000000000Z "
)

// Manager owns the log files of a folder.
type Manager struct {
	dir string
	now func() time.Time

	mu    sync.Mutex // guards the fields below
	logs  map[string]*log
	added chan struct{} // closed when a log is added
}

// New makes a manager of a folder, which it makes when first needed: logs can
// be written before it is mounted only if nobody mounts over it later.
func New(dir string) *Manager {
	return &Manager{dir: dir, now: time.Now, logs: map[string]*log{}, added: make(chan struct{})}
}

// Load makes a manager of a folder that another one has filled and nobody writes
// to any more.
func Load(dir string) (*Manager, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	m := New(dir)
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".log"); ok && id != "" {
			m.open(id)
		}
	}
	return m, nil
}

// IDs lists the services that have a log, sorted.
func (m *Manager) IDs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make([]string, 0, len(m.logs))
	for id := range m.logs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Added returns what is closed when the next service gets a log.
func (m *Manager) Added() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.added
}

// Writer returns where a service's output goes. Each write may carry any part
// of any number of lines. All writers of an id share its partial line.
func (m *Manager) Writer(id string) io.Writer { return m.open(id) }

// Dropped counts the lines of a service that could not be stored.
func (m *Manager) Dropped(id string) uint64 { return m.open(id).dropped.Load() }

// Reader returns a service's log as it was printed: the last tail lines, or
// all that is kept when tail is negative. With follow it goes on until ctx
// ends or Close; a reader too slow for the rotation misses lines.
func (m *Manager) Reader(ctx context.Context, id string, follow bool, tail int) (io.ReadCloser, error) {
	entries, err := m.Entries(ctx, id, follow, tail)
	if err != nil {
		return nil, err
	}
	return &lineReader{entries: entries}, nil
}

// Move has the logs go on in another folder, so that the file system of the old
// one can be taken away. What was written stays there. Readers let go of it as
// soon as they run again.
func (m *Manager) Move(dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dir = dir
	for id, l := range m.logs {
		l.move(filepath.Join(dir, id+".log"))
	}
}

func (m *Manager) open(id string) *log {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.logs[id]
	if l == nil {
		l = &log{path: filepath.Join(m.dir, id+".log"), now: m.now, grown: make(chan struct{})}
		m.logs[id] = l
		close(m.added)
		m.added = make(chan struct{})
	}
	return l
}

func (m *Manager) known(id string) (*log, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.logs[id]; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("log of %q: %w", id, os.ErrNotExist)
}

// log is the log of one service.
type log struct {
	now     func() time.Time
	dropped atomic.Uint64

	mu         sync.Mutex // guards the fields below
	path       string
	partial    []byte
	file       *os.File
	size       int64
	generation int           // counts rotations and moves
	grown      chan struct{} // closed when something was added
}

func (l *log) move(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	l.path = path
	l.generation++
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []byte
	at := l.now().UTC().AppendFormat(nil, stamp)
	rest := p
	for len(rest) > 0 {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		if room := maxLine - len(l.partial); len(line) > room {
			line, after, whole = rest[:room], rest[room:], true
		}
		if rest = after; !whole {
			l.partial = append(l.partial, line...)
			break
		}
		out = append(append(append(append(out, at...), l.partial...), line...), '\n')
		l.partial = l.partial[:0]
	}
	l.storeLocked(out)
	return len(p), nil
}

// storeLocked adds whole lines to the file and wakes the readers.
func (l *log) storeLocked(lines []byte) {
	if len(lines) == 0 {
		return
	}
	if err := l.readyLocked(int64(len(lines))); err != nil {
		l.dropped.Add(uint64(bytes.Count(lines, []byte{'\n'})))
		return
	}
	n, err := l.file.Write(lines)
	l.size += int64(n)
	if err != nil {
		l.dropped.Add(uint64(bytes.Count(lines[n:], []byte{'\n'})))
	}
	close(l.grown)
	l.grown = make(chan struct{})
}

// readyLocked opens the file, or a fresh one when there is no room for n more.
func (l *log) readyLocked(n int64) error {
	if l.file != nil && l.size > 0 && l.size+n > maxFile {
		l.file.Close()
		l.file = nil
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
		l.generation++
	}
	if l.file != nil {
		return nil
	}
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(l.path), 0o755); err == nil {
			file, err = os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		}
	}
	if err != nil {
		return err
	}
	l.file, l.size = file, 0
	if info, err := file.Stat(); err == nil {
		l.size = info.Size()
	}
	return nil
}

// snapshot says where the log is now, and what will be closed when it grows or
// goes elsewhere.
func (l *log) snapshot() (path string, generation int, grown <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.path, l.generation, l.grown
}

// Entry is one line of a log.
type Entry struct {
	Time time.Time // when it was received
	Line string
}

// parse reads a stored line, without its newline.
func parse(line string) Entry {
	if len(line) >= len(stamp) {
		if at, err := time.Parse(strings.TrimSpace(stamp), line[:len(stamp)-1]); err == nil {
			return Entry{Time: at, Line: line[len(stamp):]}
		}
	}
	return Entry{Line: line}
}
