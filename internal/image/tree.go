// Package image packs programs into what a node runs: the read-only SquashFS
// root and the container images of Kubernetes.
//
// A Tree describes files; a tar stream of it, in which order, owners and times
// depend on nothing but the description, becomes a layer or a file system. So
// the same inputs give the same bytes, on any machine and for any user, and the
// digest of that stream tells whether an output is still up to date.
//
// The package decides what goes into the images (rootfs.go, images.go). It does
// not build programs, write partitions or start anything. A Tree is not safe
// for concurrent use.
package image

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// An entry is one file of a Tree. Files hold either data or the path of a file
// on this machine.
type entry struct {
	mode   fs.FileMode // type and permission bits
	uid    int
	gid    int
	target string // of a symbolic link
	data   []byte
	source string
}

// Tree is a description of files by path, relative to the root and with merged
// folders (see merged). Missing parent folders are added with mode 0755.
//
// The methods that add files keep the first error; whoever reads the tree gets
// it. That lets a tree be written down as plainly as a list.
type Tree struct {
	entries map[string]entry
	err     error
}

// merged maps the folders that systems with a merged /usr have as links. Files
// named below them are stored where the links lead to.
var merged = map[string]string{
	"bin":       "usr/bin",
	"sbin":      "usr/bin",
	"lib":       "usr/lib",
	"lib64":     "usr/lib",
	"usr/sbin":  "usr/bin",
	"usr/lib64": "usr/lib",
}

// MergeUsr adds the links from /bin, /lib and so on.
func (t *Tree) MergeUsr() {
	for from, to := range merged {
		if path.Dir(from) == path.Dir(to) {
			to = path.Base(to)
		}
		t.set(from, entry{mode: fs.ModeSymlink | 0o777, target: to})
	}
}

// place returns where a file of that name is stored.
func place(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for from, to := range merged {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			return to + "/" + rest
		}
	}
	return name
}

// Dir adds a folder.
func (t *Tree) Dir(name string, perm fs.FileMode) { t.add(name, entry{mode: fs.ModeDir | perm}) }

// File adds the content of a file of this machine.
func (t *Tree) File(name, source string, perm fs.FileMode) {
	t.add(name, entry{mode: perm, source: source})
}

// Data adds a file with that content, mode 0644.
func (t *Tree) Data(name, content string) { t.add(name, entry{mode: 0o644, data: []byte(content)}) }

// Link adds a symbolic link.
func (t *Tree) Link(name, target string) {
	t.add(name, entry{mode: fs.ModeSymlink | 0o777, target: target})
}

// Program adds a program of this machine under its own name, with the loader
// and the shared libraries that it needs.
func (t *Tree) Program(name string) {
	files, err := withLibraries(name)
	if err != nil {
		t.fail(err)
		return
	}
	for _, f := range files {
		t.shared(f)
	}
}

// shared adds a file that several programs may bring.
func (t *Tree) shared(name string) {
	e := entry{mode: 0o755, source: name}
	if have, ok := t.entries[place(name)]; ok && have.source != "" {
		return
	}
	t.add(name, e)
}

func (t *Tree) add(name string, e entry) { t.set(place(name), e) }

func (t *Tree) set(name string, e entry) {
	if t.entries == nil {
		t.entries = map[string]entry{".": {mode: fs.ModeDir | 0o755}}
	}
	if have, ok := t.entries[name]; ok && !(have.mode.IsDir() && e.mode.IsDir()) {
		t.fail(fmt.Errorf("/%s is in the tree twice", name))
		return
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		have, ok := t.entries[dir]
		if !ok {
			t.entries[dir] = entry{mode: fs.ModeDir | 0o755}
		} else if !have.mode.IsDir() {
			t.fail(fmt.Errorf("/%s is below /%s, which is no folder", name, dir))
			return
		}
	}
	t.entries[name] = e
}

func (t *Tree) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// paths lists the tree in the order in which it is written: a folder comes
// before its content.
func (t *Tree) paths() []string { return slices.Sorted(maps.Keys(t.entries)) }

// WriteTar writes the tree as a tar stream.
func (t *Tree) WriteTar(w io.Writer) error {
	if t.err != nil {
		return t.err
	}
	return writeTar(w, t)
}
