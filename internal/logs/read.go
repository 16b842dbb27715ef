package logs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
)

// Entries reads a service's log line by line with the times of receipt, as
// Manager.Reader does.
func (m *Manager) Entries(ctx context.Context, id string, follow bool, tail int) (*Entries, error) {
	l, err := m.known(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	e := &Entries{log: l, ctx: ctx, cancel: cancel, follow: follow}
	if err := e.start(tail); err != nil {
		cancel()
		return nil, err
	}
	return e, nil
}

// Entries is a reader of one log. It is used by one goroutine; only Close may
// be called by another.
type Entries struct {
	log    *log
	ctx    context.Context // of the whole read: ends a blocked Next
	cancel context.CancelFunc
	follow bool

	backlog    []string // lines found at the start
	file       *os.File
	lines      *bufio.Reader
	generation int
	partial    string
}

// start reads what is there: the older file, then the newer one, which stays
// open for following.
func (e *Entries) start(tail int) error {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	e.generation = e.log.generation
	var text []string
	if older, err := os.ReadFile(e.log.path + ".1"); err == nil {
		text = splitLines(string(older))
	}
	file, err := os.Open(e.log.path)
	if err == nil {
		newer, err := io.ReadAll(file)
		if err != nil {
			file.Close()
			return err
		}
		text = append(text, splitLines(string(newer))...)
		e.use(file)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if tail >= 0 && len(text) > tail {
		text = text[len(text)-tail:]
	}
	e.backlog = text
	return nil
}

func splitLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func (e *Entries) use(file *os.File) {
	if e.file != nil {
		e.file.Close()
	}
	e.file, e.lines, e.partial = file, bufio.NewReader(file), ""
}

// Next returns the next line, or io.EOF at the end of a log that is not
// followed, or when ctx or Close ended the read.
func (e *Entries) Next() (Entry, error) {
	if len(e.backlog) > 0 {
		line := e.backlog[0]
		e.backlog = e.backlog[1:]
		return parse(line), nil
	}
	for e.follow && e.ctx.Err() == nil {
		path, generation, grown := e.log.snapshot()
		if line, ok := e.readLine(); ok {
			return parse(line), nil
		}
		if e.file == nil || generation != e.generation {
			if file, err := os.Open(path); err == nil {
				e.generation = generation
				e.use(file)
				continue
			}
			e.release() // it is not there yet; the one before is read
		}
		select {
		case <-grown:
		case <-e.ctx.Done():
		}
	}
	e.release()
	return Entry{}, io.EOF
}

// readLine takes a whole line from the open file, if there is one.
func (e *Entries) readLine() (string, bool) {
	if e.lines == nil {
		return "", false
	}
	text, err := e.lines.ReadString('\n')
	e.partial += text
	if err != nil {
		return "", false
	}
	line := strings.TrimSuffix(e.partial, "\n")
	e.partial = ""
	return line, true
}

func (e *Entries) release() {
	if e.file != nil {
		e.file.Close()
		e.file, e.lines = nil, nil
	}
}

// Close ends the read; a blocked Next returns io.EOF.
func (e *Entries) Close() error {
	e.cancel()
	return nil
}

// lineReader gives the lines alone.
type lineReader struct {
	entries *Entries
	rest    []byte
}

func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		entry, err := r.entries.Next()
		if err != nil {
			return 0, err
		}
		r.rest = append(append(r.rest[:0], entry.Line...), '\n')
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *lineReader) Close() error { return r.entries.Close() }
