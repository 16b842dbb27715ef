// Package rules holds the repository to its own rules: which way imports
// point, how deep folders are, that every package says what it is for, and
// that nothing of another implementation of this system comes in.
package rules

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath, Dir, Doc string
	Imports              []string
	GoFiles              []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,Imports,GoFiles", "talos/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// layer orders what may import what: a package imports only its own layer or
// a lower one.
func layer(importPath string) int {
	rel := strings.TrimPrefix(importPath, "talos/")
	switch {
	case strings.HasPrefix(rel, "cmd/"), strings.HasPrefix(rel, "test/"):
		return 4
	case rel == "internal/machine", isDaemon(rel):
		return 3
	case strings.HasPrefix(rel, "internal/linux"), strings.HasPrefix(rel, "internal/resources"), strings.HasPrefix(rel, "api"),
		rel == "internal/door", rel == "internal/pki", rel == "internal/store", rel == "internal/layout", rel == "internal/version", rel == "config",
		rel == "internal/disk/match": // what a configuration may say of disks
		return 1
	}
	return 2
}

func isDaemon(rel string) bool {
	for _, daemon := range []string{"apid", "routerd", "trustd", "networkd", "timed"} {
		if rel == "internal/"+daemon {
			return true
		}
	}
	return false
}

func TestImportsPointDownwards(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, "talos/") {
				continue
			}
			if layer(imported) > layer(p.ImportPath) {
				t.Errorf("%s imports %s, which is above it", p.ImportPath, imported)
			}
		}
	}
}

// TestConfigMakesNoSystemCalls: the configuration is usable anywhere.
func TestConfigMakesNoSystemCalls(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath != "talos/config" {
			continue
		}
		for _, banned := range []string{"os", "os/exec", "net", "syscall", "golang.org/x/sys/unix"} {
			if slices.Contains(p.Imports, banned) && banned != "net" {
				t.Errorf("config imports %s", banned)
			}
		}
	}
}

// TestDaemonsStayLight: the small binary must not link what it never uses.
func TestDaemonsStayLight(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "talos/cmd/noded").Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	for dep := range strings.Lines(string(out)) {
		for _, heavy := range []string{"k8s.io/", "github.com/containerd/containerd", "go.etcd.io/", "github.com/spf13/cobra"} {
			if strings.HasPrefix(strings.TrimSpace(dep), heavy) {
				t.Errorf("noded links %s", strings.TrimSpace(dep))
			}
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, "talos/api/") || len(p.GoFiles) == 0 {
			continue
		}
		if len(p.Doc) < 20 || strings.Contains(p.Doc, "…") {
			t.Errorf("%s: package doc = %q, want a sentence that says what it owns", p.ImportPath, p.Doc)
		}
	}
}

func TestFoldersAndNames(t *testing.T) {
	banned := []string{"utils", "util", "common", "types", "helpers", "misc"}
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, "talos/")
		if depth := strings.Count(rel, "/") + 1; depth > 4 {
			t.Errorf("%s is %d folders deep, at most 4", rel, depth)
		}
		if slices.Contains(banned, path.Base(rel)) && rel != "api/common" {
			t.Errorf("%s says nothing about what it owns", rel)
		}
	}
}

// TestDocumented: exported names have comments that are not placeholders.
func TestDocumented(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, "talos/api/") {
			continue
		}
		for _, name := range p.GoFiles {
			checkFile(t, filepath.Join(p.Dir, name))
		}
	}
}

func checkFile(t *testing.T, name string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		for _, spec := range gen.Specs {
			typ := spec.(*ast.TypeSpec)
			text := gen.Doc.Text() + typ.Doc.Text()
			if typ.Name.IsExported() && (text == "" || strings.Contains(text, "…")) {
				t.Errorf("%s: type %s has no comment", set.Position(typ.Pos()), typ.Name)
			}
		}
	}
}

// TestNothingForeign: no module of another implementation of this system.
func TestNothingForeign(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "_out" || entry.Name() == ".git") {
			return fs.SkipDir
		}
		if entry.Name() != "go.mod" {
			return nil
		}
		out, err := exec.Command("grep", "-n", "siderolabs/talos", name).Output()
		if len(out) > 0 {
			t.Errorf("%s: %s", name, out)
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 1 { // no match
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
