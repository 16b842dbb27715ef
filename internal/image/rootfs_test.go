package image

import (
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// maxRootFS is the size that the root may have: each node downloads it, and
// each slot on its disk holds one.
const maxRootFS = 60_000_000

// rootFS returns the image that TALOS_ROOTFS names. REQUIRE_IMAGE=1 (CI) makes a
// missing one a failure.
func rootFS(t *testing.T) string {
	t.Helper()
	name := os.Getenv("TALOS_ROOTFS")
	if name != "" {
		return name
	}
	if os.Getenv("REQUIRE_IMAGE") == "1" {
		t.Fatal("TALOS_ROOTFS names no image, and REQUIRE_IMAGE=1")
	}
	t.Skip("TALOS_ROOTFS names no image")
	return ""
}

// listed is one line of unsquashfs -lln.
type listed struct {
	mode  string // as of ls -l
	owner string // uid/gid
	path  string
}

func list(t *testing.T, image string) []listed {
	t.Helper()
	out, err := exec.Command("unsquashfs", "-lln", image).Output()
	if err != nil {
		t.Fatalf("unsquashfs -lln %s: %v", image, err)
	}
	var files []listed
	for line := range strings.Lines(string(out)) {
		const root = "squashfs-root"
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[5], root) {
			continue
		}
		if p := strings.TrimPrefix(f[5], root); p != "" {
			files = append(files, listed{f[0], f[1], p})
		}
	}
	if len(files) == 0 {
		t.Fatalf("unsquashfs -lln %s lists nothing:\n%s", image, out)
	}
	return files
}

func TestAllowlist(t *testing.T) {
	image := rootFS(t)
	allow, err := os.ReadFile("testdata/rootfs.allow")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for line := range strings.Lines(string(allow)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "/") {
			used[line] = false
		}
	}
	for _, f := range list(t, image) {
		if !allowed(used, f.path) {
			t.Errorf("%s is in the image and not in testdata/rootfs.allow", f.path)
		}
	}
	for pattern, hit := range used {
		if !hit {
			t.Errorf("%s is in testdata/rootfs.allow and not in the image", pattern)
		}
	}
}

func allowed(patterns map[string]bool, name string) bool {
	ok := false
	for pattern := range patterns {
		if hit, _ := path.Match(pattern, name); hit {
			patterns[pattern], ok = true, true
		}
	}
	return ok
}

// TestNoShell does not trust the list of allowed files.
func TestNoShell(t *testing.T) {
	refused := strings.Fields(`sh ash bash dash fish ksh mksh csh tcsh zsh busybox toybox
		ssh sshd dropbear telnet apt apt-get dpkg rpm dnf yum apk pacman
		perl python python3 lua ruby gawk awk sed vi env sudo su login getty agetty`)
	for _, f := range list(t, rootFS(t)) {
		if slices.Contains(refused, path.Base(f.path)) {
			t.Errorf("%s is in the image", f.path)
		}
	}
}

func TestModes(t *testing.T) {
	for _, f := range list(t, rootFS(t)) {
		if f.owner != "0/0" {
			t.Errorf("%s belongs to %s, want 0/0", f.path, f.owner)
		}
		if strings.ContainsAny(f.mode, "sS") {
			t.Errorf("%s has mode %s, want neither setuid nor setgid", f.path, f.mode)
		}
		if !strings.ContainsRune("-dl", rune(f.mode[0])) {
			t.Errorf("%s has mode %s, want a file, a folder or a link", f.path, f.mode)
		}
		if f.mode[0] != 'l' && f.mode[8] == 'w' && f.path != "/tmp" {
			t.Errorf("%s has mode %s, want it writable by its owner alone", f.path, f.mode)
		}
	}
}

func TestSize(t *testing.T) {
	info, err := os.Stat(rootFS(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= maxRootFS {
		t.Errorf("the image has %d bytes, want less than %d", info.Size(), maxRootFS)
	}
}
