// Package journal keeps the configurations that a node has had: a document for
// each, and an index that says what became of it and with which the node boots.
//
// The index is the one thing that decides: a document counts from the moment
// that an index naming it is written, and a loss of power at any time leaves
// the index from before or the one from after. Beside both lies a copy of the
// document to boot with, for people and other programs. What the documents say
// is no concern of this package. A Journal is not safe for concurrent use.
package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"talos/internal/linux/atomicfile"
)

// Kept is how many configurations are kept, those in use among them.
const Kept = 20

// format is of the index, for versions to come.
const format = 1

// Journal is the history in one folder.
type Journal struct {
	dir  string // index and documents
	copy string // the document to boot with
	log  *slog.Logger

	// Save replaces a file as a whole; tests fill the disk or lose the power here.
	Save func(path string, data []byte) error
}

// New makes the journal of a folder, and of the file that holds a copy of the
// document to boot with.
func New(dir, file string, log *slog.Logger) *Journal {
	return &Journal{dir: dir, copy: file, log: log, Save: save}
}

// save replaces a file that only we may read, its folder included.
func save(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Save(path, data, 0o600)
}

const indexName = "index.json"

func (j *Journal) path(name string) string { return filepath.Join(j.dir, name) }

func documentName(number uint64) string { return strconv.FormatUint(number, 10) + ".yaml" }

// Read reads the index; there is nothing in it before the first configuration.
// One that can't be read is made anew from the documents, and the error says so:
// the index is good nevertheless.
func (j *Journal) Read() (Index, error) {
	data, err := os.ReadFile(j.path(indexName))
	if errors.Is(err, fs.ErrNotExist) {
		return j.rebuild()
	}
	var x Index
	if err == nil {
		x, err = decode(data)
	}
	if err == nil {
		return x, nil
	}
	x, again := j.rebuild()
	return x, errors.Join(fmt.Errorf("index of the configurations, made anew from the %d there are: %w", len(x.Entries), err), again)
}

func decode(data []byte) (Index, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	var x Index
	if err := dec.Decode(&x); err != nil {
		return Index{}, err
	}
	if x.Format != format {
		return Index{}, fmt.Errorf("format %d, want %d", x.Format, format)
	}
	return x, x.check()
}

// rebuild makes an index of the documents alone. Of which the node booted with
// nothing is known but that the newest was applied last.
func (j *Journal) rebuild() (Index, error) {
	var x Index
	files, err := os.ReadDir(j.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return x, err
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".yaml")
		number, numErr := strconv.ParseUint(name, 10, 64)
		if !ok || numErr != nil || number == 0 {
			continue
		}
		e := Entry{Number: number, Note: "found without an index"}
		data, readErr := os.ReadFile(j.path(f.Name()))
		if readErr != nil {
			e.Outcome, e.Note = Damaged, readErr.Error()
		}
		e.Digest = Digest(data)
		if info, err := f.Info(); err == nil {
			e.Time = info.ModTime()
		}
		x.Entries = append(x.Entries, e)
	}
	slices.SortFunc(x.Entries, func(a, b Entry) int {
		if a.Number < b.Number {
			return -1
		}
		return 1
	})
	if n := len(x.Entries); n > 0 {
		x.Last = x.Entries[n-1].Number
		x.Boot = x.Last
	}
	return x, nil
}

// Document reads one document. One that is not what was written is an error.
func (j *Journal) Document(e Entry) ([]byte, error) {
	data, err := os.ReadFile(j.path(documentName(e.Number)))
	if err != nil {
		return nil, err
	}
	if Digest(data) != e.Digest {
		return nil, fmt.Errorf("%s is not as it was written", j.path(documentName(e.Number)))
	}
	return data, nil
}

// Put writes a document, which counts when an index names it.
func (j *Journal) Put(number uint64, data []byte) error {
	return j.Save(j.path(documentName(number)), data)
}

// Commit makes x the index. From its return on it is what a later boot finds.
func (j *Journal) Commit(x Index) error {
	x.Format = format
	data, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the index of the configurations: %w", err)
	}
	if err := j.Save(j.path(indexName), append(data, '\n')); err != nil {
		return err
	}
	// Both are made good at the next boot, if not now.
	if err := j.refresh(x); err != nil {
		j.log.Warn("copy of the configuration to boot with", "err", err)
	}
	if err := j.prune(x); err != nil {
		j.log.Warn("documents that are not needed any more", "err", err)
	}
	return nil
}

// Copy reads the copy of the document to boot with; somebody else may have
// written it.
func (j *Journal) Copy() ([]byte, error) { return os.ReadFile(j.copy) }

// refresh makes the copy.
func (j *Journal) refresh(x Index) error {
	e, ok := x.Find(x.Boot)
	if !ok {
		return nil
	}
	data, err := j.Document(e)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(j.copy); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return j.Save(j.copy, data)
}

// prune removes the documents that the index does not name.
func (j *Journal) prune(x Index) error {
	files, err := os.ReadDir(j.dir)
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".yaml")
		number, numErr := strconv.ParseUint(name, 10, 64)
		if !ok || numErr != nil {
			continue
		}
		if _, named := x.Find(number); !named {
			err = errors.Join(err, os.Remove(j.path(f.Name())))
		}
	}
	return err
}

// Digest tells documents apart.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
