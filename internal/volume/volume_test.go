package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/linux/mount"
	"talos/internal/wipe"
)

// TestMain runs the tests again in a mount namespace of their own, where they
// may.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv("VOLUME_TEST") == "1" {
		if os.Geteuid() == 0 {
			if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
				os.Stderr.WriteString(err.Error() + "\n")
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), "VOLUME_TEST=1")
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if err := again.Run(); err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return out, err
}

func must(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := run(context.Background(), program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// device makes a block device of a sparse file.
func device(t *testing.T, size int64) (file, dev string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("loop devices need root")
		}
		t.Skip("loop devices need root")
	}
	file = filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	dev = must(t, "losetup", "--find", "--show", file)
	t.Cleanup(func() {
		// Partitions hold the device; a device without any makes partx fail.
		_, _ = run(context.Background(), "partx", "--delete", dev)
		must(t, "losetup", "--detach", dev)
	})
	return file, dev
}

func ensure(t *testing.T, v Volume, want Result) {
	t.Helper()
	got, err := v.Mount(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("Mount of %s = %+v, want %+v", v.Label, got, want)
	}
	t.Cleanup(func() {
		if err := v.Unmount(); err != nil {
			t.Error(err)
		}
	})
}

// options are those of a mount, as the kernel tells them.
func options(t *testing.T, target string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[1] == target {
			return f[2] + " " + f[3]
		}
	}
	t.Fatalf("nothing is mounted at %s", target)
	return ""
}

func size(t *testing.T, target string) int64 {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(target, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Blocks) * s.Bsize
}

// TestSystemDisk: the first boot makes and mounts what is missing, the second
// changes nothing, and a disk that has grown is used, mounted or not, with what
// was on it.
func TestSystemDisk(t *testing.T) {
	file, dev := device(t, 3*gib)
	d, err := gpt.Open(dev, true)
	if err != nil {
		t.Fatal(err)
	}
	systemTable(t, d)
	d.Close()
	dir := t.TempDir()
	prepare := func(want Change) map[string]string {
		t.Helper()
		nodes, change, err := Prepare(t.Context(), dev)
		if err != nil || change != want {
			t.Fatalf("Prepare = %v, %v, want %v", change, err, want)
		}
		return nodes
	}
	nodes := prepare(Create)
	state, ephemeral := State(nodes[wipe.State]), Ephemeral(nodes[wipe.Ephemeral])
	state.Target, ephemeral.Target = filepath.Join(dir, "state"), filepath.Join(dir, "var")
	ensure(t, state, Result{Formatted: true})
	if !hasQuota(t) {
		ephemeral.Data = "" // see TestQuota
	}
	ensure(t, ephemeral, Result{Formatted: true})
	for target, want := range map[string]string{state.Target: "xfs rw,nosuid,nodev,noexec,", ephemeral.Target: "xfs rw,nosuid,nodev,"} {
		if got := options(t, target); !strings.HasPrefix(got, want) || strings.Contains(got, "noexec") != strings.Contains(want, "noexec") {
			t.Errorf("%s is mounted with %s, want %s", target, got, want)
		}
	}
	if info, err := os.Stat(state.Target); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("STATE has mode %v, %v", info.Mode(), err)
	}
	kept := filepath.Join(ephemeral.Target, "kept")
	if err := os.WriteFile(kept, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := size(t, ephemeral.Target)

	prepare(Nothing)
	ensure(t, ephemeral, Result{})
	if err := ephemeral.Unmount(); err != nil {
		t.Fatal(err)
	}
	ensure(t, ephemeral, Result{})

	grow := func(n int64) {
		t.Helper()
		if err := os.Truncate(file, n); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for at := n - 3*mib; at < n; at += blockSize { // an old mark is where the partition will end
			if _, err := f.WriteAt([]byte(making), at); err != nil {
				t.Fatal(err)
			}
		}
		must(t, "losetup", "--set-capacity", dev)
		prepare(Grow)
	}
	grow(4 * gib) // while it is mounted
	ensure(t, ephemeral, Result{Grown: true})
	if err := ephemeral.Unmount(); err != nil {
		t.Fatal(err)
	}
	grow(6 * gib)
	ensure(t, ephemeral, Result{Grown: true})
	ensure(t, ephemeral, Result{})
	if got := size(t, ephemeral.Target); got < before+2900*mib {
		t.Errorf("EPHEMERAL has %d bytes, had %d before the disk grew by 3 GiB", got, before)
	}
	if data, err := os.ReadFile(kept); string(data) != "data" || err != nil {
		t.Errorf("what was on it = %q, %v", data, err)
	}
}

// hasQuota says whether this kernel's XFS counts by projects.
func hasQuota(t *testing.T) bool {
	t.Helper()
	_, dev := device(t, 400*mib)
	must(t, mkfsXFS, "-f", "-q", dev)
	at := t.TempDir()
	err := unix.Mount(dev, at, "xfs", 0, "prjquota")
	if err == nil {
		err = unix.Unmount(at, 0)
	} else if errors.Is(err, unix.EINVAL) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// TestQuota: EPHEMERAL counts by projects. TALOS_IN_VM=1 says that the kernel is
// ours, which can.
func TestQuota(t *testing.T) {
	if !hasQuota(t) {
		if os.Getenv("TALOS_IN_VM") == "1" {
			t.Fatal("the kernel's XFS has no quotas")
		}
		t.Skip("the kernel's XFS has no quotas")
	}
	_, dev := device(t, 400*mib)
	unmadeDevice(t, dev)
	v := Ephemeral(dev)
	v.Target = t.TempDir()
	ensure(t, v, Result{Formatted: true})
	if got := options(t, v.Target); !strings.Contains(got, "prjquota") {
		t.Errorf("EPHEMERAL is mounted with %s, want prjquota", got)
	}
}

// unmadeDevice has a device begin like a partition of which nothing was made yet.
func unmadeDevice(t *testing.T, dev string) {
	t.Helper()
	d, err := gpt.Open(dev, true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := errors.Join(MarkUnmade(d, 0, d.Size()), d.Sync()); err != nil {
		t.Fatal(err)
	}
}

// TestContents: a file system is made where one is asked for, and nowhere else: a
// disk that returns zeros may have lost what it had.
func TestContents(t *testing.T) {
	_, dev := device(t, 400*mib)
	v := Volume{Label: wipe.Ephemeral, Device: dev, Target: filepath.Join(t.TempDir(), "at"), Mode: 0o755}
	write := func(at int64, data []byte) {
		t.Helper()
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(data, at)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	xfs := func() { write(markAt(400*mib), make([]byte, blockSize)); must(t, mkfsXFS, "-f", "-q", dev) }
	const lost = "it holds no XFS but zeros, and no mark of ours that it is to be empty: the disk has lost what was there, or does not return it"
	for _, tt := range []struct {
		name string
		make func()
		want string // "": formatted; "kept": mounted as it is; else the error
	}{
		{"blank", func() { must(t, "blkdiscard", "--zeroout", dev) }, lost},
		{"blank, and to be made", func() { unmadeDevice(t, dev) }, ""},
		{"old bytes, and to be made", func() { write(0, []byte("XFSB and old")); unmadeDevice(t, dev) }, ""},
		{"wiped", func() {
			if err := Wipe(t.Context(), wipe.Ephemeral, dev); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"xfs", xfs, "kept"},
		{"mkfs cut short", func() { xfs(); write(markAt(400*mib), []byte(making)) }, ""},
		{"damaged", func() { xfs(); write(4, []byte("\xff\xff")) }, "it can't be used as it is; what it holds is lost by: talosctl reset -n NODE --system-labels-to-wipe EPHEMERAL"},
		{"the first MiB gone", func() { xfs(); write(0, make([]byte, mib)) }, lost},
		{"the first sector gone", func() { xfs(); write(0, make([]byte, 512)) }, "it holds no XFS but bytes that no file system begins with"},
		{"ext4", func() { write(0, make([]byte, 2*mib)); must(t, "mke2fs", "-q", "-F", "-t", "ext4", dev) }, "it holds no XFS but ext4"},
		{"text", func() { write(0, []byte(strings.Repeat("text", 300000))) }, "it holds no XFS but bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.make()
			r, err := v.Mount(t.Context(), run)
			if err == nil {
				defer func() {
					if err := v.Unmount(); err != nil {
						t.Error(err)
					}
				}()
			}
			if tt.want == "" || tt.want == "kept" {
				if err != nil || r.Formatted != (tt.want == "") {
					t.Errorf("Mount = %+v, %v, want %q", r, err, tt.want)
				}
				return
			}
			if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), tt.want) || r.Formatted {
				t.Errorf("Mount = %+v, %v, want an error with %q", r, err, tt.want)
			}
		})
	}
	v.Device = "/dev/no-such-disk"
	if _, err := v.Mount(t.Context(), run); !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrUnusable) {
		t.Errorf("Mount of no device = %v", err)
	}
}

// TestSymlinks: what somebody has put in the place of a mount point, or of a
// folder on the way to it, leads the mount nowhere else.
func TestSymlinks(t *testing.T) {
	_, dev := device(t, 400*mib)
	unmadeDevice(t, dev)
	for _, link := range []string{"var/mnt/a", "var/mnt"} {
		dir := t.TempDir()
		secret := filepath.Join(dir, "secret")
		at := filepath.Join(dir, link)
		if err := errors.Join(os.MkdirAll(filepath.Join(secret, "a"), 0o755), os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(secret, at)); err != nil {
			t.Fatal(err)
		}
		v := Volume{Label: "var-mnt-a", Device: dev, Target: filepath.Join(dir, "var/mnt/a"), Mode: 0o755}
		want := fmt.Sprintf("%s is a symbolic link, to %q, and none is followed: remove it", at, secret)
		if r, err := v.Mount(t.Context(), run); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrUnusable) || r.Formatted {
			t.Errorf("Mount over a link at %s = %+v, %v, want %s", link, r, err, want)
		}
		if below, err := mount.Below(dir); err != nil || len(below) > 0 {
			t.Errorf("a link at %s led the mount to %v (%v)", link, below, err)
			for _, m := range below {
				if err := mount.Detach(m.Mountpoint); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestCutShort loses the power while a file system is made: whatever is on the
// disk of it, the next start makes it anew, and the one after that keeps it.
func TestCutShort(t *testing.T) {
	file, dev := device(t, 400*mib)
	v := Volume{Label: wipe.Ephemeral, Device: dev, Target: filepath.Join(t.TempDir(), "at"), Mode: 0o755}
	errPower := errors.New("the power is gone")
	for name, lost := range map[string][][2]int64{
		"all":                   {{0, markAt(400 * mib)}},
		"nothing":               nil,
		"the beginning":         {{0, blockSize}},
		"all but the beginning": {{blockSize, markAt(400*mib) - blockSize}},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, "blkdiscard", "--zeroout", dev)
			unmadeDevice(t, dev)
			_, err := v.Mount(t.Context(), func(ctx context.Context, program string, args ...string) ([]byte, error) {
				if _, err := run(ctx, program, args...); err != nil {
					t.Error(err)
				}
				d, err := gpt.Open(dev, false)
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				for _, r := range lost {
					if err := d.Zero(r[0], r[1]); err != nil {
						t.Error(err)
					}
				}
				return nil, errPower
			})
			if !errors.Is(err, errPower) {
				t.Fatalf("Mount without power = %v", err)
			}
			for _, formatted := range []bool{true, false} {
				r, err := v.Mount(t.Context(), run)
				if err != nil || r.Formatted != formatted || r.Grown {
					t.Errorf("Mount = %+v, %v, want formatted %t", r, err, formatted)
				}
				if err := v.Unmount(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	end, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(end[markAt(400*mib):], make([]byte, reserved)) {
		t.Errorf("the file system reaches into the end of the device, or the mark is still there: %v", err)
	}
}

// TestImage: what STATE begins with is there when it is mounted.
func TestImage(t *testing.T) {
	file, dev := device(t, 100*mib)
	files := map[string][]byte{"config.yaml": []byte("version: v1alpha1"), "config/1.yaml": bytes.Repeat([]byte("x"), 100000), "config/2.yaml": {}}
	image := filepath.Join(t.TempDir(), "image")
	if err := MakeImage(t.Context(), run, image, wipe.State, 100*mib, files); err != nil {
		t.Fatal(err)
	}
	must(t, "cp", "--sparse=always", image, file)
	v := State(dev)
	v.Target = filepath.Join(t.TempDir(), "state")
	ensure(t, v, Result{})
	for name, want := range files {
		path := filepath.Join(v.Target, name)
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, %v, want %d", name, len(got), err, len(want))
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(v.Target, "config", "3.yaml"), nil, 0o600); err != nil {
		t.Errorf("write into it: %v", err)
	}
}

// TestWipe: what held keys is overwritten whole, what is large at its ends, and
// what is in use not at all.
func TestWipe(t *testing.T) {
	file, dev := device(t, 120*mib)
	fill := func() {
		t.Helper()
		if err := format(t.Context(), run, dev, "X", 120*mib); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int64{60 * mib, 119 * mib} {
			if _, err := f.WriteAt([]byte("secret"), at); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	read := func(at, n int64) string {
		t.Helper()
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.NewSectionReader(f, at, n))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Trim(string(b), "\x00")
	}
	for _, label := range []string{"", wipe.State, wipe.Ephemeral} {
		fill()
		err := Wipe(t.Context(), label, dev)
		if label == "" {
			err = WipeDisk(t.Context(), dev)
		}
		if err != nil {
			t.Fatal(err)
		}
		left := ""
		if label != "" {
			left = making
		}
		if got := read(0, mib) + read(119*mib, mib); got != left {
			t.Errorf("wipe %s left %.60q at the ends, want %q", label, got, left)
		}
		if label == wipe.State && read(mib, 118*mib) != "" {
			t.Errorf("wipe %s left %.20q", label, read(mib, 118*mib))
		}
	}
	v := Volume{Label: wipe.Ephemeral, Device: dev, Target: filepath.Join(t.TempDir(), "at"), Mode: 0o755}
	ensure(t, v, Result{Formatted: true})
	if err := Wipe(t.Context(), wipe.Ephemeral, dev); !errors.Is(err, unix.EBUSY) {
		t.Errorf("Wipe of what is mounted = %v, want EBUSY", err)
	}
	if mounted, err := mount.Mounted(v.Target); !mounted || err != nil {
		t.Errorf("Mounted = %t, %v", mounted, err)
	}
}

// TestExtraDisk: a blank disk is partitioned and mounted, the next boot only
// mounts it.
func TestExtraDisk(t *testing.T) {
	_, dev := device(t, 2*gib)
	x := ExtraDisk{Device: dev, Partitions: []ExtraPartition{{500 * mib, "/var/volume-test/a"}, {0, "/var/volume-test/b"}}}
	t.Cleanup(func() { os.RemoveAll("/var/volume-test") })
	for pass, want := range []bool{true, false} {
		found, err := disk.Probe(dev)
		if err != nil {
			t.Fatal(err)
		}
		partition, err := PlanDisk(x, dev, "/dev/sda", found.Volume)
		if err != nil || partition != want {
			t.Fatalf("pass %d: PlanDisk = %t, %v, want %t", pass, partition, err, want)
		}
		volumes, err := MountDisk(t.Context(), run, x, dev, partition)
		if err != nil || len(volumes) != 2 {
			t.Fatalf("pass %d: MountDisk = %v, %v", pass, volumes, err)
		}
		file := "/var/volume-test/b/file"
		if pass == 0 {
			if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if data, err := os.ReadFile(file); string(data) != "data" || err != nil {
			t.Errorf("what was written = %q, %v", data, err)
		}
		if a, b := size(t, x.Partitions[0].Mountpoint), size(t, x.Partitions[1].Mountpoint); a > 500*mib || a < 400*mib || b < 1400*mib {
			t.Errorf("sizes %d and %d, want about 500 MiB and the rest", a/mib, b/mib)
		}
		for _, v := range volumes {
			if err := v.Unmount(); err != nil {
				t.Error(err)
			}
		}
	}
}
