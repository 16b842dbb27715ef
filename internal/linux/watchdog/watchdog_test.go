package watchdog

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBequeath: what is left to the next program is open when it starts, however
// often garbage is collected until then, and reaches nobody after that.
func TestBequeath(t *testing.T) {
	name := filepath.Join(t.TempDir(), "watchdog")
	variable := func() string {
		file, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		variable, err := (&Watchdog{file: file}).Bequeath()
		if err != nil {
			t.Fatal(err)
		}
		return variable
	}()
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond) // finalizers have a goroutine of their own
	}
	key, fd, _ := strings.Cut(variable, "=")
	if to, err := os.Readlink("/proc/self/fd/" + fd); key != Inherited || err != nil || to != name {
		t.Fatalf("%s is %q, %v, want %s", variable, to, err, name)
	}

	t.Setenv(key, fd)
	w, err := Inherit()
	if err != nil || w == nil {
		t.Fatalf("Inherit = %v, %v", w, err)
	}
	defer w.file.Close()
	if flags, err := unix.FcntlInt(w.file.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags of what was inherited = %#x, %v, want it closed for programs", flags, err)
	}
	if again, err := Inherit(); again != nil || err != nil {
		t.Errorf("a second Inherit = %v, %v", again, err)
	}
	t.Setenv(key, "x")
	if _, err := Inherit(); err == nil {
		t.Error("Inherit of what is no number = nil error")
	}
}

// TestSetTimeout: whatever a driver can, the timer has a time that is known where
// it can be.
func TestSetTimeout(t *testing.T) {
	for _, tt := range []struct {
		name     string
		most     int // seconds; 0: it can't be set
		mute     bool
		want     time.Duration
		problems bool
	}{
		{"any", 1000, false, 180 * time.Second, false},
		{"a minute", 60, false, 45 * time.Second, false},
		{"half of that", 38, false, 22 * time.Second, false},
		{"its own", 0, false, 30 * time.Second, true},
		{"its own, which it does not tell", 0, true, 0, true},
	} {
		file, err := os.Create(filepath.Join(t.TempDir(), "watchdog"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		now := 30
		w := &Watchdog{file: file, set: func(seconds int) error {
			switch {
			case tt.most == 0:
				return unix.EOPNOTSUPP
			case seconds > tt.most:
				return unix.EINVAL
			}
			now = seconds
			return nil
		}, get: func() (int, error) {
			if tt.mute {
				return 0, unix.EOPNOTSUPP
			}
			return now, nil
		}}
		if err := w.SetTimeout(3 * time.Minute); (err != nil) != tt.problems || w.Timeout() != tt.want {
			t.Errorf("%s: SetTimeout = %v, %v, want %v", tt.name, w.Timeout(), err, tt.want)
		}
	}
	// A file is no driver: what is open all the same runs.
	name := filepath.Join(t.TempDir(), "watchdog")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if w, err := Open(name, time.Minute); err != nil || w == nil {
		t.Errorf("Open of what takes no time = %v, %v", w, err)
	}
}
