package sbom

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type parsed struct {
	SPDXVersion, DataLicense, SPDXID, Name, DocumentNamespace string
	CreationInfo                                              struct {
		Created  string
		Creators []string
	}
	Packages      []Package
	Relationships []relation
}

// program is a Go program: this test.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func write(t *testing.T, files []File, parts ...Part) ([]byte, parsed) {
	t.Helper()
	data, err := Write(context.Background(), "Talos", "v1.2.3", files, parts...)
	if err != nil {
		t.Fatal(err)
	}
	var d parsed
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return data, d
}

func find(d parsed, name string) *Package {
	i := slices.IndexFunc(d.Packages, func(p Package) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &d.Packages[i]
}

func locator(p *Package) string {
	if p == nil || len(p.ExternalRefs) != 1 {
		return ""
	}
	return p.ExternalRefs[0].Locator
}

// TestDocument: what SPDX 2.3 demands of a document is there, ids are unique and
// of the form that it has for them, and every relation is between two of them.
func TestDocument(t *testing.T) {
	_, d := write(t, []File{{Name: "usr/bin/program", Source: program(t)}}, Part{"linux-source-6.12", "6.12.1-1"})
	if d.SPDXVersion != "SPDX-2.3" || d.DataLicense != "CC0-1.0" || d.SPDXID != "SPDXRef-DOCUMENT" ||
		d.Name != "Talos v1.2.3" || !strings.HasPrefix(d.DocumentNamespace, "https://") || strings.Contains(d.DocumentNamespace, "#") ||
		d.CreationInfo.Created != "1970-01-01T00:00:00Z" || len(d.CreationInfo.Creators) != 1 {
		t.Errorf("head of the document: %+v", d)
	}
	ids := map[string]bool{"SPDXRef-DOCUMENT": true}
	for _, p := range d.Packages {
		if ids[p.ID] || !regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`).MatchString(p.ID) {
			t.Errorf("package %s has the id %q", p.Name, p.ID)
		}
		ids[p.ID] = true
		if p.Name == "" || p.Location == "" || p.Analyzed {
			t.Errorf("package %+v lacks what must be there", p)
		}
	}
	described := 0
	for _, r := range d.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("relation %v leads outside of the document", r)
		}
		if r.Type == "DESCRIBES" {
			described++
		}
	}
	if described != 1 {
		t.Errorf("the document describes %d packages, want 1", described)
	}
	vendor, _ := distribution()
	if got, want := locator(find(d, "linux-source-6.12")), "pkg:deb/"+vendor+"/linux-source-6.12@6.12.1-1?arch=source"; !strings.HasPrefix(got, want) {
		t.Errorf("kernel: %q, want it to begin with %q", got, want)
	}
}

// TestProgram: a Go program's modules and its compiler are there, each program's
// own.
func TestProgram(t *testing.T) {
	built := filepath.Join(t.TempDir(), "init") // a test's own binary does not name its modules
	if out, err := exec.Command("go", "build", "-o", built, "talos/cmd/init").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	_, d := write(t, []File{{Name: "usr/bin/first", Source: built}})
	first, sys := find(d, "first"), find(d, "golang.org/x/sys")
	if first == nil || first.Version != "v1.2.3" || sys == nil || find(d, "stdlib") == nil {
		t.Fatalf("the program %v, its module %v, or stdlib is missing", first, sys)
	}
	if !slices.Contains(d.Relationships, relation{first.ID, "DEPENDS_ON", sys.ID}) {
		t.Error("the program does not depend on its module")
	}
	if !strings.HasPrefix(locator(sys), "pkg:golang/golang.org/x/sys@v0.") {
		t.Errorf("module: %q", locator(sys))
	}
	if len(first.Checksums) != 1 || len(first.Checksums[0].Value) != 64 {
		t.Errorf("checksums of the program: %v", first.Checksums)
	}
}

// TestDebian: files are traced to their packages, by either name of a merged
// folder; one of no package is an error unless its package was said.
func TestDebian(t *testing.T) {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		t.Skip(err)
	}
	for _, name := range []string{"/usr/bin/dpkg", "/bin/bash", "/usr/bin/bash"} {
		want := filepath.Base(name)
		data, d := write(t, []File{{Name: "usr/bin/x", Source: name}})
		p := find(d, want)
		if p == nil || !strings.Contains(locator(p), "/"+want+"@") || !strings.Contains(locator(p), "upstream="+want+"%40") {
			t.Errorf("%s: no package %s with its source in\n%s", name, want, data)
		}
	}
	unowned := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(unowned, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(context.Background(), "Talos", "v1", []File{{Name: "x", Source: unowned}}); err == nil {
		t.Error("a file of no package: Write = nil error")
	}
	if _, d := write(t, []File{{Name: "x", Source: unowned, Packages: []string{"bash"}}}); find(d, "bash") == nil {
		t.Error("a package that was said is missing")
	}
	if _, err := Write(context.Background(), "Talos", "v1", []File{{Name: "x", Source: unowned, Packages: []string{"no-such-package"}}}); err == nil {
		t.Error("a package that is not installed: Write = nil error")
	}
}

func TestReproducible(t *testing.T) {
	files := []File{{Name: "usr/bin/a", Source: program(t)}, {Name: "usr/bin/b", Source: program(t)}}
	a, _ := write(t, files, Part{"x", "1"}, Part{"y", "2"})
	slices.Reverse(files)
	b, _ := write(t, files, Part{"y", "2"}, Part{"x", "1"})
	if diff := cmp.Diff(string(a), string(b)); diff != "" {
		t.Errorf("the same files in another order give another document:\n%s", diff)
	}
}
