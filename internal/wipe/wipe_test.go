package wipe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// node makes a node's folders, with a link out of EPHEMERAL, and a wiper.
func node(t *testing.T) (w *Wiper, root string) {
	t.Helper()
	root = t.TempDir()
	put := func(name string) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(name), 0o000)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"var/lib/etcd/member/wal", "var/lib/etcd.bootstrap", "state/config.yaml", "meta/power", "meta/other", "elsewhere/kept"} {
		put(name)
	}
	if err := errors.Join(
		os.MkdirAll(filepath.Join(root, "var/lib/overlay/work/work"), 0o700),
		os.Chmod(filepath.Join(root, "var/lib/overlay/work/work"), 0),
		os.Symlink(filepath.Join(root, "elsewhere"), filepath.Join(root, "var/run")),
		os.Symlink("/no/such", filepath.Join(root, "var/dangling")),
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(root, "var/lib/overlay/work/work"), 0o700) }) // if it is still there
	return &Wiper{
		Note:    filepath.Join(root, "meta", "wipe"),
		Folders: map[string]string{Ephemeral: filepath.Join(root, "var"), State: filepath.Join(root, "state"), Meta: filepath.Join(root, "meta")},
		Keep:    map[string][]string{Meta: {"power", "wipe"}},
	}, root
}

// files lists what is below root, folders only where they are empty.
func files(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path) // path is below root
		if list, err := os.ReadDir(path); d.IsDir() && err == nil && len(list) == 0 {
			rel += "/"
		} else if d.IsDir() {
			return nil
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: pods leave folders that only root may read")
	}
	all := []string{"elsewhere/kept", "meta/other", "meta/power", "state/config.yaml"}
	for _, tt := range []struct {
		labels []string
		want   []string
	}{
		{[]string{Ephemeral}, append(slices.Clone(all), "var/")},
		{[]string{State, Ephemeral}, []string{"elsewhere/kept", "meta/other", "meta/power", "state/", "var/"}},
		{All(), []string{"elsewhere/kept", "meta/power", "state/", "var/"}},
	} {
		t.Run(strings.Join(tt.labels, ","), func(t *testing.T) {
			w, root := node(t)
			if err := w.Plan(tt.labels); err != nil {
				t.Fatal(err)
			}
			if err := w.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, files(t, root)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if pending, err := w.Pending(); err != nil || pending != nil {
				t.Errorf("Pending = %v, %v, want nothing", pending, err)
			}
		})
	}
}

// TestCutShort: what was begun is known and finished later.
func TestCutShort(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: pods leave folders that only root may read")
	}
	w, root := node(t)
	if err := w.Plan([]string{State, Ephemeral}); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want it to end with its context", err)
	}
	pending, err := w.Pending()
	if diff := cmp.Diff([]string{Ephemeral, State}, pending); diff != "" || err != nil {
		t.Errorf("Pending: %v (-want +got):\n%s", err, diff)
	}
	if err := w.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"elsewhere/kept", "meta/other", "meta/power", "state/", "var/"}, files(t, root)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// TestMounts: what is mounted below is not touched, whatever it is, and named.
func TestMounts(t *testing.T) {
	w, root := node(t)
	inner := filepath.Join(root, "var/lib/volume")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	// The same file system: a device number would not tell.
	if err := unix.Mount(filepath.Join(root, "elsewhere"), inner, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer unix.Unmount(inner, unix.MNT_DETACH) // the wipe must not have done it
	if err := w.Plan([]string{Ephemeral}); err != nil {
		t.Fatal(err)
	}
	if err := w.Run(t.Context()); err == nil || !strings.Contains(err.Error(), inner+": something is mounted there") {
		t.Errorf("Run = %v, want it to name the mount", err)
	}
	if _, err := os.Stat(filepath.Join(root, "elsewhere/kept")); err != nil {
		t.Errorf("what was mounted: %v", err)
	}
	if pending, err := w.Pending(); err != nil || len(pending) != 1 {
		t.Errorf("Pending = %v, %v, want EPHEMERAL", pending, err)
	}
}

// TestDeep: a tree that is deeper than there may be descriptors, and whose paths
// are longer than the kernel takes, goes, with what is beside its branches.
func TestDeep(t *testing.T) {
	const depth, descriptors = 10_000, 32
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		t.Setenv("TMPDIR", "/dev/shm") // on a disk the note's fsync waits for ten thousand folders
	}
	w, root := node(t)
	at, err := unix.Open(filepath.Join(root, "var"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range depth {
		below, err := unix.Openat(at, "deeper", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(at, "deeper", 0o700); err == nil {
				below, err = unix.Openat(at, "deeper", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			}
		}
		if err == nil && i%1000 == 0 {
			err = unix.Symlinkat(filepath.Join(root, "elsewhere"), at, "zz-link")
		}
		if err != nil {
			t.Fatalf("folder %d: %v", i, err)
		}
		unix.Close(at)
		at = below
	}
	unix.Close(at)

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = descriptors
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(w.Plan([]string{Ephemeral}), w.Run(t.Context()))
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); e != nil {
		t.Fatal(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"elsewhere/kept", "meta/other", "meta/power", "state/config.yaml", "var/"}, files(t, root)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// TestMovedMeanwhile: a folder that somebody moves while it is emptied does not
// lead out: nothing beside its new place is touched.
func TestMovedMeanwhile(t *testing.T) {
	_, root := node(t)
	inner := filepath.Join(root, "var/lib")
	w := &walk{root: filepath.Join(root, "var"), at: -1}
	for _, name := range []string{"", "lib"} {
		fd, err := unix.Open(filepath.Join(w.root, name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.enter(name, fd); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { unix.Close(w.at) }()
	if err := os.Rename(inner, filepath.Join(root, "elsewhere/lib")); err != nil {
		t.Fatal(err)
	}
	if err := w.leave(); err == nil || !strings.Contains(err.Error(), "leave "+inner+": it was moved") {
		t.Errorf("leave = %v, want that it was moved", err)
	}
	if _, err := os.Stat(filepath.Join(root, "elsewhere/kept")); err != nil {
		t.Errorf("what is beside it now: %v", err)
	}
}

// TestErrors: of many errors some are told, with paths that can be read.
func TestErrors(t *testing.T) {
	w := &walk{root: "/var", above: []level{{}}}
	for range 100 {
		w.above = append(w.above, level{name: strings.Repeat("x", 200)})
	}
	for range maxErrors + 7 {
		w.fail("remove", "name", unix.EPERM)
	}
	text := w.ended(context.Canceled).Error()
	for _, words := range []string{"remove /var/xxx", "xxx/name: operation not permitted", "and 7 more", "context canceled"} {
		if !strings.Contains(text, words) {
			t.Errorf("errors lack %q", words)
		}
	}
	if len(text) > (maxErrors+1)*(maxPath+100) {
		t.Errorf("errors have %d bytes", len(text))
	}
}

func TestParse(t *testing.T) {
	got, err := Parse([]string{State, Ephemeral, State})
	if diff := cmp.Diff([]string{Ephemeral, State}, got); diff != "" || err != nil {
		t.Errorf("Parse: %v (-want +got):\n%s", err, diff)
	}
	if _, err := Parse([]string{"BOOT"}); err == nil || !strings.Contains(err.Error(), `"BOOT"`) {
		t.Errorf("Parse(BOOT) = %v, want an error that names it", err)
	}
}
