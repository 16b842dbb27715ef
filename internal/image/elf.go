package image

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// libraryDirs is where Debian's loader looks, in its order.
func libraryDirs() []string {
	triplet := map[string]string{
		"amd64": "x86_64-linux-gnu",
		"arm64": "aarch64-linux-gnu",
	}[runtime.GOARCH]
	return []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib", "/usr/lib"}
}

// withLibraries returns a program's path, its loader and all shared libraries
// that it links, directly or through others. Paths are the names by which they
// are looked up, so that no links between library versions are needed.
func withLibraries(program string) ([]string, error) {
	found := []string{program}
	for i := 0; i < len(found); i++ {
		loader, names, err := needs(found[i])
		if err != nil {
			return nil, err
		}
		if loader != "" && !slices.Contains(found, loader) {
			found = append(found, loader)
		}
		for _, name := range names {
			if strings.HasPrefix(name, "ld-linux") {
				continue // the loader, which has its own place
			}
			lib, err := findLibrary(name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", found[i], err)
			}
			if !slices.Contains(found, lib) {
				found = append(found, lib)
			}
		}
	}
	return found, nil
}

// needs reads the loader and the names of the libraries out of an ELF file.
func needs(name string) (loader string, libraries []string, err error) {
	f, err := elf.Open(name)
	if err != nil {
		return "", nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b, err := io.ReadAll(p.Open())
		if err != nil {
			return "", nil, fmt.Errorf("read %s: %w", name, err)
		}
		loader = strings.TrimRight(string(b), "\x00")
	}
	libraries, err = f.ImportedLibraries()
	if err != nil {
		return "", nil, fmt.Errorf("read %s: %w", name, err)
	}
	return loader, libraries, nil
}

func findLibrary(name string) (string, error) {
	for _, dir := range libraryDirs() {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("library %s: %w", name, os.ErrNotExist)
}
