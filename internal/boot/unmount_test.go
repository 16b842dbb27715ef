package boot

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// alone has this thread see mounts of its own. It is not used again.
func alone(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("mounts need root")
		}
		t.Skip("mounts need root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
}

// TestTakeAway: file systems are unmounted, the last made first; what is in use
// for a moment is waited for, and what stays in use is read-only or at least
// synced, and named with who uses it.
func TestTakeAway(t *testing.T) {
	alone(t)
	dir := t.TempDir()
	outer, inner := filepath.Join(dir, "outer"), filepath.Join(dir, "outer", "inner")
	for _, tt := range []struct {
		name string
		file string // that is open, in which file system
		flag int
		long bool   // for ever, not for a moment
		want string // the error
		ro   bool

		container bool
	}{
		{"free", "", 0, false, "", false, false},
		{"for a moment", inner, os.O_RDONLY, false, "", false, false},
		{"in use", outer, os.O_RDONLY, true, `^OUTER, from tmpfs, stays mounted: in use by process \d+ \(boot.test\): OUTER/file; it was made read-only$`, true, false},
		{"in use in a container", outer, os.O_RDONLY, true, `it can't be made read-only either \(the file system is the host's\), and was only synced$`, false, true},
		{"written to", outer, os.O_RDWR, true, `^OUTER, from tmpfs, stays mounted: in use by process \d+ \(boot.test\): OUTER/file; it can't be made read-only either \(device or resource busy\), and was only synced$`, false, false},
		{"in use inside", inner, os.O_RDONLY, true, `OUTER/inner, from tmpfs, stays mounted: .*OUTER/inner/file; it was made read-only\nOUTER, from tmpfs, stays mounted: `, true, false},
	} {
		var mounts []*mountinfo.Info
		for _, target := range []string{outer, inner} {
			if err := os.MkdirAll(target, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", target, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			mounts = append([]*mountinfo.Info{{Mountpoint: target, Source: "tmpfs"}}, mounts...)
		}
		var file *os.File
		if tt.file != "" {
			if err := os.WriteFile(filepath.Join(tt.file, "file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			var err error
			if file, err = os.OpenFile(filepath.Join(tt.file, "file"), tt.flag, 0); err != nil {
				t.Fatal(err)
			}
			if !tt.long {
				time.AfterFunc(4*busyPause, func() { file.Close() })
			}
		}
		text := ""
		if err := takeAway(t.Context(), mounts, tt.container); err != nil {
			text = strings.ReplaceAll(err.Error(), outer, "OUTER")
		}
		if tt.want == "" && text != "" || !regexp.MustCompile(tt.want).MatchString(text) {
			t.Errorf("%s: takeAway = %q, want %q", tt.name, text, tt.want)
		}
		if file != nil && tt.long {
			var st unix.Statfs_t
			if err := unix.Fstatfs(int(file.Fd()), &st); err != nil || st.Flags&unix.ST_RDONLY != 0 != tt.ro {
				t.Errorf("%s: read-only %t, %v, want %t", tt.name, st.Flags&unix.ST_RDONLY != 0, err, tt.ro)
			}
			file.Close()
		}
		if left, err := os.ReadDir(outer); err != nil || len(left) > 0 { // what is below is seen again
			t.Errorf("%s: %v is still seen, %v", tt.name, left, err)
		}
	}
}
