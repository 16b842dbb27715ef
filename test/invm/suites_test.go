package invm

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"talos/internal/image"
)

// A suite is some of a package's tests.
type suite struct {
	Package string
	Tests   []string
}

// suites are the tests that need our kernel, by package. They run in this order:
// udevd's last one changes the names of what the machine has.
var suites = []suite{
	{"internal/linux/dm", []string{"TestCreate"}},
	{"internal/linux/loopdev", []string{"TestAttach"}},
	{"internal/initramfs", []string{"TestCheckedByKernel"}},
	{"internal/platform", []string{"TestMount"}},
	{"internal/metal", []string{"TestMarkGood"}},
	{"internal/volume", []string{"TestQuota", "TestSystemDisk"}},
	{"internal/networkd", []string{"TestVLANs", "TestBonds", "TestBondCarries"}},
	{"internal/udevd", []string{"TestLoopDevice", "TestInMachine"}},
}

// programs are what these tests call.
var programs = []string{
	"/usr/sbin/mkfs.xfs", "/usr/sbin/mkfs.ext4", "/usr/sbin/mke2fs", "/usr/sbin/sgdisk", "/usr/bin/partx", "/usr/sbin/losetup", "/usr/bin/cp",
}

// TestUnderOurKernel runs the suites in one machine. A test that is skipped
// there, or does not run, has failed.
func TestUnderOurKernel(t *testing.T) {
	built(t)
	type entry struct{ Package, Run string }
	var list []entry
	dir := t.TempDir()
	args := []string{"test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/"}
	for _, s := range suites {
		args = append(args, "talos/"+s.Package)
	}
	compile(t, args...)
	disk := root(t, programs, func(tree *image.Tree) {
		for _, s := range suites {
			tree.File("tests/"+s.Package+"/test", filepath.Join(dir, filepath.Base(s.Package)+".test"), 0o755)
			testdata(t, tree, s.Package)
			list = append(list, entry{s.Package, "^(" + strings.Join(s.Tests, "|") + ")$"})
		}
		data, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		tree.Data("tests/list.json", string(data))
	})
	report := filepath.Join(dir, "report")
	m := start(t, 8*time.Minute, disk, "tests",
		"-device", "virtio-serial-pci", "-chardev", "file,id=report,path="+report, "-device", "virtserialport,chardev=report",
		// For udevd: a disk and a card behind some of the drivers.
		"-device", "virtio-scsi-pci", "-drive", "if=none,id=scsi,format=raw,file="+empty(t), "-device", "scsi-hd,drive=scsi,serial=S1",
		"-drive", "if=none,id=nvme,format=raw,file="+empty(t), "-device", "nvme,serial=N1,drive=nvme",
		"-device", "virtio-net-pci", "-device", "e1000")
	m.wait(t)
	data, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	said := split(string(data))
	for _, s := range suites {
		t.Run(s.Package, func(t *testing.T) { judge(t, said[s.Package], s.Tests) })
	}
}

// testdata adds the files that a package's tests read.
func testdata(t *testing.T, tree *image.Tree, name string) {
	t.Helper()
	dir := filepath.Join("..", "..", name)
	err := filepath.WalkDir(filepath.Join(dir, "testdata"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		tree.File("tests/"+name+"/"+rel, path, 0o644)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// empty makes a disk with nothing on it.
func empty(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 400<<20); err != nil {
		t.Fatal(err)
	}
	return name
}

// split returns what each package's tests said.
func split(report string) map[string]string {
	said := map[string]string{}
	for _, part := range strings.Split(report, "=== PACKAGE ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		said[name] = text
	}
	return said
}

// result is a line by which a test, or a test inside of it, tells how it ended.
var result = regexp.MustCompile(`(?m)^( *)--- (PASS|FAIL|SKIP): (\S+) \(`)

// judge says of each test how it ended.
func judge(t *testing.T, said string, tests []string) {
	t.Helper()
	ended := map[string]string{}
	for _, m := range result.FindAllStringSubmatch(said, -1) {
		name, _, _ := strings.Cut(m[3], "/")
		// A test that ran again in a process of its own shows what that said:
		// what was skipped there was skipped.
		if m[2] == "SKIP" || m[1] == "" && ended[name] == "" {
			ended[name] = m[2]
		}
	}
	for _, name := range tests {
		t.Run(name, func(t *testing.T) {
			if got := ended[name]; got != "PASS" {
				t.Errorf("it has ended with %q, want PASS", got)
			}
		})
	}
	if !strings.Contains(said, "\n=== END <nil>\n") {
		t.Error("the program did not end well")
	}
	if t.Failed() {
		t.Logf("it said:\n%s", said)
	}
}

// TestNoneIsForgotten: each package with a test that asks where it runs is on
// the list.
func TestNoneIsForgotten(t *testing.T) {
	top := filepath.Join("..", "..")
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(top, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".")) && name != ".":
			return fs.SkipDir
		case filepath.Dir(name) == filepath.Join("test", "invm"), !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "TALOS_IN_VM") && !slices.ContainsFunc(suites, func(s suite) bool { return s.Package == filepath.Dir(name) }) {
			t.Errorf("%s asks for TALOS_IN_VM, and %s is not one of the suites", name, filepath.Dir(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
