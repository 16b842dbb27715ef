package kernel

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// withoutFirmware are the files that drivers ask for and are not packed.
var withoutFirmware = map[string]string{
	"bnx2x/bnx2x-e1-7.13.15.0.fw":  "asked for when the newer one is not there",
	"bnx2x/bnx2x-e1h-7.13.15.0.fw": "asked for when the newer one is not there",
	"bnx2x/bnx2x-e2-7.13.15.0.fw":  "asked for when the newer one is not there",
	"rtl_nic/rtl8125d-1.fw":        "newer than Debian's package; the card works without",
	"rtl_nic/rtl8126a-2.fw":        "newer than Debian's package; the card works without",
	"rtl_nic/rtl8126a-3.fw":        "newer than Debian's package; the card works without",
}

// TestFirmware: every file that a driver asks for is on the list or has a reason,
// and nothing else is.
func TestFirmware(t *testing.T) {
	dir := filepath.Dir(built(t))
	info, err := os.ReadFile(filepath.Join(dir, "modules.builtin.modinfo"))
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	for _, m := range regexp.MustCompile(`[^\x00]+\.firmware=([^\x00]+)\x00`).FindAllSubmatch(info, -1) {
		asked[string(m[1])] = true
	}
	if len(asked) < 20 {
		t.Fatalf("drivers ask for %d files", len(asked))
	}
	for name := range asked {
		switch packed := slices.Contains(list(t, "firmware.list"), name); {
		case !packed && withoutFirmware[name] == "":
			t.Errorf("a driver asks for %s, and neither it nor a reason is there", name)
		case packed && withoutFirmware[name] != "":
			t.Errorf("%s is there, and a reason why not", name)
		}
	}
	for _, name := range list(t, "firmware.list") {
		if !asked[name] {
			t.Errorf("nobody asks for %s", name)
		}
	}
}

// list are the lines of a file that the script lists has written.
func list(t *testing.T, name string) []string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// TestBuiltin: the list in the root is what the kernel has built in.
func TestBuiltin(t *testing.T) {
	want, err := os.ReadFile(filepath.Join(filepath.Dir(built(t)), "modules.builtin"))
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, "modules.builtin"); !slices.Equal(got, strings.Fields(string(want))) {
		t.Errorf("modules.builtin has %d lines that are not the kernel's %d: run kernel/lists", len(got), len(strings.Fields(string(want))))
	}
}

// TestFiles: what is packed are the files of the list, and the terms of the
// packages that they are from.
func TestFiles(t *testing.T) {
	dir := filepath.Join("..", "_out", "kernel-files")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("REQUIRE_IMAGE") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	var got, terms []string
	folder := os.DirFS(filepath.Join(dir, "firmware"))
	err := fs.WalkDir(folder, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if license, ok := strings.CutPrefix(name, "LICENSES/"); ok {
			terms = append(terms, license)
		} else {
			got = append(got, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := list(t, "firmware.list")
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("packed are %v, want %v", got, want)
	}
	source, err := os.ReadFile(filepath.Join(dir, "source"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(source)) {
		if name, _, _ := strings.Cut(line, "\t"); !slices.Contains(terms, name) {
			t.Errorf("the terms of %s are not among %v", name, terms)
		}
	}
	if len(terms) == 0 {
		t.Error("no terms are packed")
	}
}
