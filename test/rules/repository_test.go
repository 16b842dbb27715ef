package rules

import (
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository's.
var root = filepath.Join("..", "..")

// TestDependenciesHaveReasons: every direct dependency, also those of the
// tools, has its line in the page of decisions, and every line is one.
func TestDependenciesHaveReasons(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "decisions", "0001-dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	var reasoned []string
	for _, row := range regexp.MustCompile(`(?m)^\| (\S+\.\S+) \| .+ \|$`).FindAllSubmatch(page, -1) {
		reasoned = append(reasoned, string(row[1]))
	}
	direct := slices.Concat(directModules(t, "go.mod"), directModules(t, filepath.Join("tools", "go.mod")))
	for _, module := range direct {
		if !slices.Contains(reasoned, module) {
			t.Errorf("0001-dependencies.md has no reason for %s", module)
		}
	}
	for _, module := range reasoned {
		if !slices.Contains(direct, module) {
			t.Errorf("0001-dependencies.md has a reason for %s, which is no direct dependency", module)
		}
	}
}

// directModules are the modules that code here, or a tool, asks for.
func directModules(t *testing.T, file string) []string {
	t.Helper()
	out, err := exec.Command("go", "mod", "edit", "-json", filepath.Join(root, file)).Output()
	if err != nil {
		t.Fatalf("go mod edit -json %s: %v", file, err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Tool []struct{ Path string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	var direct []string
	for _, r := range mod.Require {
		for _, tool := range mod.Tool {
			if tool.Path == r.Path || strings.HasPrefix(tool.Path, r.Path+"/") {
				r.Indirect = false
			}
		}
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	return direct
}

// TestNoPathsOfOneMachine: what is committed works everywhere, so it names no
// home directory and no folder of whoever built it.
func TestNoPathsOfOneMachine(t *testing.T) {
	machine := regexp.MustCompile(`(^|[^\w$./*])/(root|home/\w+|Users/\w+|work|workspace)/[\w.]`)
	allowed := map[string]string{
		"internal/image/images.go": "nonroot:x:65532:65532::/home/nonroot:/sbin/nologin", // a user of an image
	}
	for _, name := range committed(t) {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		number := 0
		for line := range strings.Lines(string(data)) {
			number++
			known := allowed[name] != "" && strings.Contains(line, allowed[name])
			if found := machine.FindString(line); found != "" && !known {
				t.Errorf("%s:%d names %q: %s", name, number, found, strings.TrimSpace(line))
			}
		}
	}
}

// committed lists the files that git has. Outside of a checkout, such as in an
// unpacked archive, there are none to look at.
func committed(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Skipf("git ls-files: %v", err)
	}
	var names []string
	for name := range strings.SplitSeq(string(out), "\x00") {
		info, err := os.Lstat(filepath.Join(root, name))
		if name == "" || err != nil || !info.Mode().IsRegular() { // removed and not committed yet, or a link
			continue
		}
		if path.Ext(name) != ".sum" {
			names = append(names, name)
		}
	}
	return names
}

// TestImportsAreGrouped: the standard library, then third parties, then ours,
// each in order.
func TestImportsAreGrouped(t *testing.T) {
	for _, name := range committed(t) {
		if path.Ext(name) != ".go" || strings.HasPrefix(name, "api/") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		block := regexp.MustCompile(`(?s)\nimport \(\n(.*?)\n\)`).FindSubmatch(data)
		if block == nil {
			continue
		}
		previous := -1
		for group := range strings.SplitSeq(string(block[1]), "\n\n") {
			var kinds []int
			var paths []string
			for _, found := range regexp.MustCompile(`(?m)^\t(?:[\w.]+ )?"([^"]+)"`).FindAllStringSubmatch(group, -1) {
				kinds, paths = append(kinds, kind(found[1])), append(paths, found[1])
			}
			if len(kinds) == 0 {
				continue
			}
			if slices.Min(kinds) != slices.Max(kinds) || kinds[0] < previous {
				t.Errorf("%s: imports are not grouped as standard, third-party, ours: %v", name, paths)
			}
			if !slices.IsSorted(paths) {
				t.Errorf("%s: imports are not in order: %v", name, paths)
			}
			previous = kinds[0]
		}
	}
}

// kind of an import: 0 standard, 1 third-party, 2 ours.
func kind(imported string) int {
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case first == "talos":
		return 2
	case strings.Contains(first, "."):
		return 1
	}
	return 0
}
