package image

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/layout"
	"talos/internal/sbom"
	"talos/internal/version"
)

// KernelFiles is the folder in which kernel/files leaves what the root needs of
// the kernel: firmware, modules.builtin and source.
type KernelFiles string

func (k KernelFiles) path(name string) string { return filepath.Join(string(k), name) }

// Source are the Debian packages that a file names, as kernel/build and
// kernel/files write it: lines of a name, a tab, a version.
func Source(file string) ([]sbom.Part, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the kernel, or what goes with it, is not there (run kernel/build and kernel/files): %w", err)
	}
	defer f.Close()
	var parts []sbom.Part
	for s := bufio.NewScanner(f); s.Scan(); {
		name, version, ok := strings.Cut(s.Text(), "\t")
		if !ok {
			return nil, fmt.Errorf("%s: %q: want a package, a tab, a version", f.Name(), s.Text())
		}
		parts = append(parts, sbom.Part{Name: name, Version: version})
	}
	return parts, nil
}

// addKernel adds what goes with the kernel: the list of what is built in, which
// nothing else tells, and the files that its drivers ask for.
func addKernel(t *Tree, k KernelFiles) {
	t.File(layout.BuiltinModules, k.path("modules.builtin"), 0o644)
	root := k.path("firmware")
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		t.File("usr/lib/firmware/"+rel, name, 0o644)
		return nil
	})
	if err != nil {
		t.fail(fmt.Errorf("firmware: %w", err))
	}
}

// Bill is the SPDX document for the root that t describes, and for what goes
// with it: files by the Debian package that they are from, or programs, and
// packages.
func Bill(ctx context.Context, t *Tree, k KernelFiles, tag string, more []sbom.File, packages ...sbom.Part) ([]byte, error) {
	if t.err != nil {
		return nil, t.err
	}
	parts, err := Source(k.path("source"))
	if err != nil {
		return nil, err
	}
	return sbom.Write(ctx, version.Name, tag, append(t.sources(k), more...), append(parts, packages...)...)
}

// sources are the tree's files that come from this machine, but for those of k,
// which names its packages itself.
func (t *Tree) sources(k KernelFiles) []sbom.File {
	var files []sbom.File
	for _, name := range t.paths() {
		f := sbom.File{Name: name, Source: t.entries[name].source}
		if f.Source == "" || strings.HasPrefix(f.Source, k.path("")+"/") {
			continue
		}
		switch {
		case f.Source == caCertificates: // made when the package is installed
			f.Packages = []string{"ca-certificates"}
		case name == "usr/bin/runc": // linked into it
			f.Packages = []string{"libc6-dev", "libseccomp-dev"}
		}
		files = append(files, f)
	}
	return files
}
