// Package wipe empties the node's persistent folders for a reset.
//
// What shall be emptied is written down first and forgotten when it is done: a
// wipe that a loss of power, a hung mount or the deadline of the way down has
// cut short is finished at the next start, before anything reads there. It
// never follows a link or a mount out of the folder that it empties. A Wiper is
// used by one goroutine at a time.
package wipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"talos/internal/layout"
	"talos/internal/linux/atomicfile"
)

// Labels of what can be emptied.
const (
	Ephemeral = "EPHEMERAL"
	State     = "STATE"
	Meta      = "META"
)

// All is the whole system disk, in the order in which it is emptied: the note
// is on META, which is therefore the last.
func All() []string { return []string{Ephemeral, State, Meta} }

// Wiper empties the folders of one node.
type Wiper struct {
	Note    string              // file that says what shall be emptied
	Folders map[string]string   // by label
	Keep    map[string][]string // names in a folder that stay
}

// New makes the wiper of this node.
func New() *Wiper {
	return &Wiper{
		Note:    layout.WipeFile,
		Folders: map[string]string{Ephemeral: layout.EphemeralDir, State: layout.StateDir, Meta: layout.MetaDir},
		Keep:    map[string][]string{Meta: {filepath.Base(layout.PowerFile), filepath.Base(layout.WipeFile)}},
	}
}

// Parse checks labels as a user gives them and puts them in order, each once.
func Parse(labels []string) ([]string, error) {
	for _, label := range labels {
		if !slices.Contains(All(), label) {
			return nil, fmt.Errorf("no system partition %q: there are %s", label, strings.Join(All(), ", "))
		}
	}
	return slices.DeleteFunc(All(), func(label string) bool { return !slices.Contains(labels, label) }), nil
}

// Plan writes down what shall be emptied.
func (w *Wiper) Plan(labels []string) error {
	labels, err := Parse(labels)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(w.Note), 0o700); err != nil {
		return err
	}
	return atomicfile.Save(w.Note, []byte(strings.Join(labels, "\n")+"\n"), 0o600)
}

// Pending is what was written down and has not been done.
func (w *Wiper) Pending() ([]string, error) {
	text, err := os.ReadFile(w.Note)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return Parse(strings.Fields(string(text)))
}

// Run empties what is pending; the note goes when all of it is empty.
func (w *Wiper) Run(ctx context.Context) error {
	labels, err := w.Pending()
	if err != nil || len(labels) == 0 {
		return err
	}
	var errs []error
	for _, label := range labels {
		if err := empty(ctx, w.Folders[label], w.Keep[label]); err != nil {
			errs = append(errs, fmt.Errorf("wipe %s: %w", label, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(w.Note); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(w.Note))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
