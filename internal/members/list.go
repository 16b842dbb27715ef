package members

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"sync/atomic"

	"talos/internal/linux/atomicfile"
)

// List is the cluster as this node last heard of it.
type List struct {
	file string
	log  *slog.Logger

	leaving atomic.Bool // this node is about to be wiped

	mu      sync.Mutex // guards the fields below
	records []Record
	live    bool          // straight from etcd: others may be told
	changed chan struct{} // closed with the next change
}

// NewList starts with what was kept in a file on STATE.
func NewList(file string, log *slog.Logger) *List {
	l := &List{file: file, log: log, changed: make(chan struct{})}
	records, err := load(file)
	if err != nil {
		log.Warn("the members last seen are not known", "err", err)
	}
	l.records = records
	return l
}

// load reads what is kept; what is wrong in it is left out.
func load(file string) ([]Record, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all, good []Record
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, r := range all {
		if r.Check() == nil {
			good = append(good, r)
		}
	}
	return good, nil
}

// Set replaces the list.
func (l *List) Set(records []Record, live bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == live && reflect.DeepEqual(l.records, records) {
		return
	}
	l.records, l.live = records, live
	close(l.changed)
	l.changed = make(chan struct{})
}

// Save keeps the list for the next start. An empty one is not kept: it would
// not help to find anybody.
func (l *List) Save() {
	records, _, _ := l.Now()
	if len(records) == 0 {
		return
	}
	data, err := json.Marshal(records)
	if have, readErr := os.ReadFile(l.file); readErr == nil && bytes.Equal(have, data) {
		return
	}
	if err == nil {
		err = atomicfile.Save(l.file, data, 0o600)
	}
	if err != nil {
		l.log.Warn("the members are not kept for the next start", "err", err)
	}
}

// Stale says that the list may be out of date.
func (l *List) Stale() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live {
		l.live = false
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// Now returns the list, whether it is straight from etcd, and a channel that
// is closed when either changes. The records are shared: read only.
func (l *List) Now() (records []Record, live bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records, l.live, l.changed
}
