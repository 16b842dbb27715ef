package udevd

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/linux/netns"
	"talos/internal/linux/sysfs"
	"talos/internal/linux/uevent"
	"talos/internal/udevd/linkname"
)

// kernel is the real source of messages. It also plays devtmpfs for a folder
// that stands for /dev, so that the real one stays as it is.
type kernel struct {
	*uevent.Socket
	dev string
}

func (k kernel) Receive() (uevent.Event, error) {
	e, err := k.Socket.Receive()
	if err == nil && e.Subsystem == "block" {
		err = k.node(e)
	}
	return e, err
}

func (k kernel) node(e uevent.Event) error {
	name := filepath.Join(k.dev, e.Env["DEVNAME"])
	if e.Action == uevent.Remove {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(number(e.Env["MAJOR"]), number(e.Env["MINOR"]))))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// loopDevice attaches an image and detaches it at the end of the test.
func loopDevice(t *testing.T, image string) (name string, detach func()) {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	for range 20 { // others may take the one that is free
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		name = "loop" + strconv.Itoa(n)
		dev, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_PARTSCAN}})
		if errors.Is(err, unix.EBUSY) {
			dev.Close()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		attached := true
		detach = func() {
			if attached {
				attached = false
				if _, err := unix.IoctlRetInt(int(dev.Fd()), unix.LOOP_CLR_FD); err != nil {
					t.Errorf("detach %s: %v", name, err)
				}
				dev.Close()
			}
		}
		t.Cleanup(detach)
		return name, detach
	}
	t.Fatal("no loop device is free")
	return "", nil
}

// need skips the test without what it needs, unless REQUIRE_PRIV=1.
func need(t *testing.T, programs ...string) {
	t.Helper()
	netns.Need(t, programs...)
	_, err := os.Stat("/dev/loop-control")
	if os.Geteuid() == 0 && err == nil {
		return
	}
	if os.Getenv("REQUIRE_PRIV") == "1" {
		t.Fatalf("needs root and loop devices: %v", err)
	}
	t.Skip("needs root and loop devices")
}

// TestLoopDevice: a disk with partitions comes, file systems are made on it, and
// it goes: by the real kernel's messages.
func TestLoopDevice(t *testing.T) {
	need(t, "sgdisk", "partx", "mkfs.ext4", "mkfs.xfs")
	dev := t.TempDir()
	d := New(Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), KernelNames: true, Accounts: accounts(t), Dev: dev, Run: t.TempDir()})
	d.open = func() (source, error) {
		s, err := uevent.Listen()
		return kernel{s, dev}, err
	}
	s := &stage{Daemon: d, root: filepath.Dir(dev)}
	if err := os.Symlink(filepath.Base(dev), filepath.Join(s.root, "dev")); err != nil {
		t.Fatal(err)
	}
	s.run(t)

	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil {
		t.Fatal(err)
	}
	label := "udevd-test-" + strconv.Itoa(os.Getpid()) // others may test the same beside us
	command(t, "sgdisk", "-n", "1:2048:+8M", "-c", "1:"+label, "-n", "2:0:0", "-c", "2:"+label+"-2", image)
	loop, detach := loopDevice(t, image)
	command(t, "partx", "-u", "/dev/"+loop) // for kernels that read no partition tables
	s.await(t, "disk/by-partlabel/"+label, "../../"+loop+"p1")
	s.await(t, "disk/by-partlabel/"+label+"-2", "../../"+loop+"p2")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dev, loop+"p1"), &st); err != nil || st.Mode&0o777 != 0o660 || st.Gid != 6 {
		t.Errorf("node of the partition: mode %04o, group %d, %v, want 0660 and 6", st.Mode&0o777, st.Gid, err)
	}

	fs := "l" + strconv.Itoa(os.Getpid())
	command(t, "mkfs.ext4", "-q", "-L", fs+"-a", filepath.Join(dev, loop+"p1"))
	s.await(t, "disk/by-label/"+fs+"-a", "../../"+loop+"p1")
	command(t, "mkfs.xfs", "-q", "-L", fs+"-b", filepath.Join(dev, loop+"p2"))
	s.await(t, "disk/by-label/"+fs+"-b", "../../"+loop+"p2")
	command(t, "mkfs.ext4", "-q", "-F", "-L", fs+"-c", filepath.Join(dev, loop+"p1"))
	s.await(t, "disk/by-label/"+fs+"-c", "../../"+loop+"p1")
	s.await(t, "disk/by-label/"+fs+"-a", "")

	for _, dev := range s.Devices("block") {
		if dev.Node == loop+"p2" && (dev.Probe == nil || dev.Probe.Kind != "xfs" || dev.Env["ID_FS_TYPE"] != "xfs") {
			t.Errorf("what is on the second partition: %+v", dev)
		}
	}
	detach()
	s.await(t, "disk/by-label/"+fs+"-b", "")
	s.await(t, "disk/by-partlabel/"+label, "")
	if p := s.Problems(); p != nil {
		t.Errorf("Problems = %q", p)
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// await waits until a link leads somewhere, or is gone.
func (s *stage) await(t *testing.T, name, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for s.leads(name) != want {
		select {
		case <-ctx.Done():
			t.Fatalf("%s leads to %q, want %q", name, s.leads(name), want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestInMachine: the whole on a machine of our own, whose devices may be changed:
// every disk and every network card gets its names, and rules take effect on what
// is there.
func TestInMachine(t *testing.T) {
	if os.Getenv("TALOS_IN_VM") != "1" {
		t.Skip("changes /dev and the names of network links: runs in a virtual machine, TALOS_IN_VM=1")
	}
	tree := sysfs.FS("/sys")
	cards, err := tree.Class("net")
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]string{} // place in sysfs to name
	for _, c := range cards {
		if name := linkname.Of(c); name != "" {
			wanted[filepath.Dir(c.Path())] = name
		}
	}
	d := New(Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Accounts: accounts(t)})
	s := &stage{Daemon: d, root: "/"}
	began := time.Now()
	s.run(t)
	t.Logf("settled after %v, %d devices", time.Since(began), len(s.Devices("")))
	if p := s.Problems(); p != nil {
		t.Errorf("Problems = %q", p)
	}

	disks, err := disk.List(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for _, dk := range disks {
		t.Logf("%s: %s, %d bytes, %q", dk.Name, dk.Transport, dk.Size, dk.Symlinks)
		for _, name := range dk.Symlinks {
			if to, err := filepath.EvalSymlinks(name); err != nil || to != dk.DevPath {
				t.Errorf("%s leads to %q, %v, want %s", name, to, err, dk.DevPath)
			}
		}
		if dk.Physical() && dk.Transport != "mmc" && !slices.ContainsFunc(dk.Symlinks, func(l string) bool { return strings.HasPrefix(l, "/dev/disk/by-path/") }) {
			t.Errorf("%s has no link by its place: %q", dk.Name, dk.Symlinks)
		}
	}
	cards, err = tree.Class("net")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range cards {
		if c.Has("device") {
			got[filepath.Dir(c.Path())] = c.Name()
		}
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("network cards (-want +got):\n%s", diff)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("/dev/null: %v, %v", info.Mode(), err)
	}

	// A rule renames a link and sets a mode, of what is there.
	for place, name := range got {
		rule := `SUBSYSTEM=="net", ACTION=="add", KERNEL=="` + name + `", NAME="ruled0"`
		if err := s.SetRules([]string{rule, `KERNEL=="zero", MODE="0644"`}); err != nil {
			t.Fatal(err)
		}
		s.settle(t)
		if now, err := filepath.Glob(filepath.Join("/sys", place, "net/*")); err == nil && len(now) == 1 && filepath.Base(now[0]) != "ruled0" {
			t.Errorf("after a rule the link is still %q", now)
		}
		break
	}
	if info, err := os.Stat("/dev/zero"); len(got) > 0 && (err != nil || info.Mode().Perm() != 0o644) {
		t.Errorf("after a rule /dev/zero has mode %v, %v", info.Mode(), err)
	}
}
