package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// sample is a tree of every kind of file; its source has the given time and mode.
func sample(t *testing.T, modified time.Time, mode fs.FileMode) *Tree {
	t.Helper()
	src := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(src, []byte("\x7fELF"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(src, modified, modified); err != nil {
		t.Fatal(err)
	}
	tree := new(Tree)
	tree.File("sbin/tool", src, 0o755)
	tree.MergeUsr()
	tree.Link("usr/bin/alias", "tool")
	tree.Data("etc/motd", "hello\n")
	tree.Dir("tmp", fs.ModeSticky|0o777)
	tree.Dir("root", 0o700)
	return tree
}

func TestTar(t *testing.T) {
	var b bytes.Buffer
	if err := sample(t, time.Now(), 0o600).WriteTar(&b); err != nil {
		t.Fatal(err)
	}
	type file struct {
		Name, Link, Data string
		Mode             int64
	}
	want := []file{
		{Name: "./", Mode: 0o755},
		{Name: "bin", Link: "usr/bin", Mode: 0o777},
		{Name: "etc/", Mode: 0o755},
		{Name: "etc/motd", Data: "hello\n", Mode: 0o644},
		{Name: "lib", Link: "usr/lib", Mode: 0o777},
		{Name: "lib64", Link: "usr/lib", Mode: 0o777},
		{Name: "root/", Mode: 0o700},
		{Name: "sbin", Link: "usr/bin", Mode: 0o777},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "usr/", Mode: 0o755},
		{Name: "usr/bin/", Mode: 0o755},
		{Name: "usr/bin/alias", Link: "tool", Mode: 0o777},
		{Name: "usr/bin/tool", Data: "\x7fELF", Mode: 0o755},
		{Name: "usr/lib64", Link: "lib", Mode: 0o777},
		{Name: "usr/sbin", Link: "bin", Mode: 0o777},
	}
	var got []file
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s: time %v, owner %d:%d, want the epoch and 0:0", h.Name, h.ModTime, h.Uid, h.Gid)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, file{h.Name, h.Linkname, string(data), h.Mode})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tar differs (-want +got):\n%s", diff)
	}
}

func TestTreeRefuses(t *testing.T) {
	tests := map[string]func(*Tree){
		"twice":          func(t *Tree) { t.Data("etc/a", "1"); t.Data("/etc/a", "2") },
		"below a file":   func(t *Tree) { t.Data("etc", "1"); t.Data("etc/a", "2") },
		"below a link":   func(t *Tree) { t.Link("var/run", "/run"); t.Data("var/run/a", "") },
		"merged":         func(t *Tree) { t.Data("bin/a", ""); t.Data("usr/sbin/a", "") },
		"missing source": func(t *Tree) { t.File("a", "/nonexistent", 0o644) },
		"folder":         func(t *Tree) { t.File("a", os.TempDir(), 0o644) },
		"no program":     func(t *Tree) { t.Program("/etc/passwd") },
	}
	for name, build := range tests {
		tree := new(Tree)
		build(tree)
		if err := tree.WriteTar(io.Discard); err == nil {
			t.Errorf("%s: WriteTar = nil, want an error", name)
		}
	}
}

func TestProgramBringsLibraries(t *testing.T) {
	if _, err := os.Stat("/usr/bin/mount"); err != nil {
		t.Skip("no dynamically linked program to look at")
	}
	tree := new(Tree)
	tree.Program("/usr/bin/mount")
	tree.Program("/usr/bin/umount") // shares the libraries
	if err := tree.WriteTar(io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"usr/bin/mount", "/libc.so.6", "/libmount.so.1", "usr/lib/ld-linux-"} {
		if !slices.ContainsFunc(tree.paths(), func(p string) bool { return strings.Contains("/"+p, want) }) {
			t.Errorf("paths = %v, want %s among them", tree.paths(), want)
		}
	}
}

func TestSquashFSReproducible(t *testing.T) {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("mksquashfs is not installed")
	}
	var images [][]byte
	for i, mode := range []fs.FileMode{0o600, 0o755} {
		out := filepath.Join(t.TempDir(), "out")
		tree := sample(t, time.Unix(int64(1e9*(i+1)), 0), mode)
		for pass, want := range []bool{true, false} {
			written, err := WriteSquashFS(context.Background(), tree, out)
			if err != nil {
				t.Fatal(err)
			}
			if written != want {
				t.Errorf("pass %d: WriteSquashFS wrote = %v, want %v", pass, written, want)
			}
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, b)
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two images of one tree differ")
	}
}

func TestLayer(t *testing.T) {
	tree := sample(t, time.Now(), 0o600)
	var plain bytes.Buffer
	if err := tree.WriteTar(&plain); err != nil {
		t.Fatal(err)
	}
	l, err := newLayer(tree)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, plain.Bytes()) {
		t.Error("unpacking the layer does not give the tar stream")
	}
	if want, _, _ := v1.SHA256(&plain); l.diffID != want {
		t.Errorf("diff id = %v, want %v", l.diffID, want)
	}
	if want, _, _ := v1.SHA256(bytes.NewReader(l.compressed)); l.digest != want {
		t.Errorf("digest = %v, want %v", l.digest, want)
	}
}

func TestLayout(t *testing.T) {
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	for i, dir := range dirs {
		shared, own := sample(t, time.Unix(int64(1e9*(i+1)), 0), 0o600), new(Tree)
		own.Data("etc/own", "x")
		images := []Image{
			{Ref: "example.org/one:v1", Layers: []*Tree{shared}, Config: v1.Config{User: "1:1"}},
			{Ref: "example.org/two:v1", Layers: []*Tree{shared, own}},
		}
		for pass, want := range []bool{true, false} {
			written, err := WriteLayout(images, dir)
			if err != nil {
				t.Fatal(err)
			}
			if written != want {
				t.Errorf("pass %d: WriteLayout wrote = %v, want %v", pass, written, want)
			}
		}
	}

	index, err := layout.ImageIndexFromPath(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	// Fast leaves out unpacking the layers: the library knows only gzip there.
	// TestLayer does that.
	if err := validate.Index(index, validate.Fast); err != nil {
		t.Errorf("validate.Index = %v", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, m := range manifest.Manifests {
		refs = append(refs, m.Annotations["org.opencontainers.image.ref.name"])
	}
	if diff := cmp.Diff([]string{"example.org/one:v1", "example.org/two:v1"}, refs); diff != "" {
		t.Errorf("names differ (-want +got):\n%s", diff)
	}

	var blobs [][]string
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range names {
			names[i] = filepath.Base(names[i])
		}
		blobs = append(blobs, names)
	}
	// Two layers, two configurations, two manifests: the shared layer is there once.
	if len(blobs[0]) != 6 {
		t.Errorf("blobs = %v, want 6", blobs[0])
	}
	if diff := cmp.Diff(blobs[0], blobs[1]); diff != "" {
		t.Errorf("two layouts of the same images differ (-first +second):\n%s", diff)
	}
}
