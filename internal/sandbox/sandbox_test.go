package sandbox

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"talos/internal/linux/mount"
)

// role is set in the copy of this test that runs in namespaces of its own: the
// folder to hide.
const role = "SANDBOX_TEST"

func TestMain(m *testing.M) {
	if dir := os.Getenv(role); dir != "" {
		if err := inside(dir); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString("hidden\n")
		_, _ = io.ReadAll(os.Stdin) // until the test has looked
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// inside does what prepare does, to a folder of the test.
func inside(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := hide(dir, []string{dir + "/kept"}); err != nil {
		return err
	}
	return mount.Share("/")
}

// TestHide: what is hidden can't be uncovered, what is kept is the same folder,
// and outside nothing has changed.
func TestHide(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "system")
	for _, p := range []mount.Point{
		{Source: "tmpfs", Target: dir, Type: "tmpfs"}, {Source: "tmpfs", Target: dir + "/state", Type: "tmpfs"},
	} {
		if err := p.Ensure(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := mount.Detach(p.Target); err != nil {
				t.Error(err)
			}
		})
	}
	write(t, dir+"/state/config.yaml")
	write(t, dir+"/log/apid")
	write(t, dir+"/kept/deep/file")

	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stderr = []string{role + "=" + dir}, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	said := make([]byte, 20)
	if n, err := out.Read(said); err != nil || string(said[:n]) != "hidden\n" {
		t.Fatalf("it said %q, %v", said[:n], err)
	}
	write(t, dir+"/kept/later") // by machined
	root := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "root")
	for name, want := range map[string]bool{"/state/config.yaml": false, "/state": false, "/log": false, "/kept/deep/file": true, "/kept/later": true} {
		if _, err := os.Stat(root + dir + name); (err == nil) != want {
			t.Errorf("%s inside: %v, want it there: %t", name, err, want)
		}
		if _, err := os.Stat(dir + name); err != nil {
			t.Errorf("outside: %v", err)
		}
	}
	if err := os.Mkdir(root+dir+"/made", 0o700); err == nil {
		t.Error("what is left of the folder can be written to")
	}
	mounts, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(mounts), " "+dir+" "); n != 1 {
		t.Errorf("%d mounts on %s inside, want only the new one:\n%s", n, dir, mounts)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
}
