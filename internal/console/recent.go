package console

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"talos/internal/logs"
	"talos/internal/loop"
)

// kept is how many lines of logs are remembered: a screen has no room for more.
const kept = 16

// Line is a warning or an error of a service.
type Line struct {
	Time    time.Time
	Service string
	Text    string
}

// recent are the last of them.
type recent struct {
	mu   sync.Mutex // guards last
	last []Line
}

func (r *recent) lines() []Line {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.last)
}

func (r *recent) add(l Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Logs are read beside each other: a late one may be older.
	at := len(r.last)
	for at > 0 && r.last[at-1].Time.After(l.Time) {
		at--
	}
	r.last = slices.Insert(r.last, at, l)
	if len(r.last) > kept {
		r.last = slices.Delete(r.last, 0, len(r.last)-kept)
	}
}

// follow reads the log of every service, also of those that come later.
func (r *recent) follow(ctx context.Context, m *logs.Manager) error {
	readers, ctx := loop.NewGroup(ctx)
	followed := map[string]bool{}
	for {
		added := m.Added()
		for _, id := range m.IDs() {
			if !followed[id] {
				followed[id] = true
				readers.Go(func() error { r.read(ctx, m, id); return nil })
			}
		}
		select {
		case <-ctx.Done():
			return readers.Wait()
		case <-added:
		}
	}
}

func (r *recent) read(ctx context.Context, m *logs.Manager, id string) {
	entries, err := m.Entries(ctx, id, true, kept)
	if err != nil {
		return // one log less on the console; over the API the error shows
	}
	defer entries.Close()
	for {
		entry, err := entries.Next()
		if err != nil {
			return
		}
		if level := logs.Level(entry.Line); level == "warn" || level == "error" {
			r.add(Line{entry.Time, id, text(entry.Line)})
		}
	}
}

// preamble is what slog's text and klog put before the message.
var preamble = regexp.MustCompile(`^(time=\S+ level=\w+ msg=|[WEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ )`)

// text is a line without what the console shows anyway.
func text(line string) string {
	return strings.TrimSpace(preamble.ReplaceAllString(line, ""))
}
