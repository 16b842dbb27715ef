package mount

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests again in a mount namespace of their own.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			os.Stderr.WriteString("mount tests need root\n")
			os.Exit(1)
		}
		return
	}
	if os.Getenv("MOUNT_TEST") == "1" {
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), "MOUNT_TEST=1")
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if err := again.Run(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func TestEnsureTwice(t *testing.T) {
	dir := t.TempDir()
	p := Point{Source: "tmpfs", Target: filepath.Join(dir, "made", "here"), Type: "tmpfs"}
	for pass := range 2 {
		if err := p.Ensure(); err != nil {
			t.Fatalf("pass %d: %v", pass, err)
		}
	}
	below, err := Below(dir)
	if err != nil || len(below) != 1 {
		t.Errorf("Below = %d mounts, %v, want 1", len(below), err)
	}
	for range 2 { // the second finds nothing to do
		if err := Detach(p.Target); err != nil {
			t.Fatal(err)
		}
	}
	if mounted, err := Mounted(p.Target); mounted || err != nil {
		t.Errorf("Mounted after Detach = %t, %v", mounted, err)
	}
}

// TestFolder: what is mounted goes where the folder was when it was opened, with
// what was missing of its path.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "new", "folder")
	f, err := OpenFolder(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	moved := filepath.Join(dir, "moved")
	if err := errors.Join(os.Rename(name, moved), os.Symlink("/", name)); err != nil {
		t.Fatal(err)
	}
	if mounted, err := f.Mounted(); mounted || err != nil {
		t.Errorf("Mounted before = %t, %v", mounted, err)
	}
	p := Point{Source: "tmpfs", Target: name, Type: "tmpfs"}
	if err := p.On(f); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := Detach(moved); err != nil {
			t.Error(err)
		}
	}()
	root, err := OpenFolder(moved)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if mounted, err := root.Mounted(); !mounted || err != nil {
		t.Errorf("Mounted after = %t, %v", mounted, err)
	}
	if err := root.Chmod(0o700); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(moved); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
	p.Type = "no-such-type"
	if err := p.On(root); err == nil || !strings.Contains(err.Error(), "mount "+name+": no-such-type") {
		t.Errorf("On = %v, want it to name %s", err, name)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{name, filepath.Join(name, "etc"), "relative", dir + "/../x", file, filepath.Join(file, "x")} {
		if _, err := OpenFolder(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("OpenFolder(%s) = %v, want an error that names it", bad, err)
		}
	}
}

func TestReadOnlyBind(t *testing.T) {
	source, target := t.TempDir(), t.TempDir()
	p := Point{Source: source, Target: target, Flags: unix.MS_BIND | unix.MS_RDONLY}
	if err := p.Mount(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := Detach(target); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(filepath.Join(target, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write through the bind = %v, want EROFS", err)
	}
	if err := os.WriteFile(filepath.Join(source, "x"), nil, 0o600); err != nil {
		t.Errorf("write to the source = %v", err)
	}
}

func TestErrorNames(t *testing.T) {
	err := Point{Source: "none", Target: "/does/not/exist", Type: "tmpfs"}.Mount()
	var path *fs.PathError
	if !errors.As(err, &path) || !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), `mount /does/not/exist: tmpfs from "none"`) {
		t.Errorf("Mount = %v, want it to name what and where, with ENOENT", err)
	}
}
