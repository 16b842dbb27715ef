package reap

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test program play the children.
func TestMain(m *testing.M) {
	switch os.Getenv("REAP_TEST") {
	case "exit3":
		os.Stdout.WriteString("three\n")
		os.Exit(3)
	case "sleep":
		time.Sleep(time.Hour)
	case "orphan": // a grandchild that outlives its parent
		self, err := os.Executable()
		if err != nil {
			os.Exit(9)
		}
		_, err = os.StartProcess(self, []string{self}, &os.ProcAttr{Env: []string{"REAP_TEST=nap"}})
		if err != nil {
			os.Exit(9)
		}
		os.Exit(0)
	case "nap":
		time.Sleep(50 * time.Millisecond)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func start(t *testing.T, r *Reaper, role string) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Start(self, []string{self}, &os.ProcAttr{Env: []string{"REAP_TEST=" + role}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newReaper(t *testing.T) *Reaper {
	r, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestStatus(t *testing.T) {
	r := newReaper(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			p := start(t, r, "exit3")
			<-p.Done()
			if got := p.Status().ExitStatus(); got != 3 {
				t.Errorf("ExitStatus() = %d, want 3", got)
			}
			if err := p.Signal(unix.SIGKILL); err != nil {
				t.Errorf("Signal after the end = %v, want nil", err)
			}
		})
	}
	wg.Wait()
	p := start(t, r, "sleep")
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "signal 9") {
		t.Errorf("Err() = %v, want it to name signal 9", err)
	}
}

func TestOrphan(t *testing.T) {
	r := newReaper(t)
	<-start(t, r, "orphan").Done()
	for deadline := time.Now().Add(30 * time.Second); r.Orphans() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the orphan was not collected")
		}
	}
}

// TestRunLeavesBehind: a program that does not end when it is killed holds nobody.
// Here its end is not seen, which is the same.
func TestRunLeavesBehind(t *testing.T) {
	r := newReaper(t)
	r.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("REAP_TEST", "sleep")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = r.Run(ctx, self)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "goes on after SIGKILL") {
		t.Errorf("Run = %v, want that it goes on", err)
	}
	if took := time.Since(began); took > 10*killTime {
		t.Errorf("it took %v", took)
	}
}

func TestRun(t *testing.T) {
	r := newReaper(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("REAP_TEST", "exit3")
	out, err := r.Run(context.Background(), self)
	if string(out) != "three\n" || err == nil || !strings.Contains(err.Error(), "exited with code 3: three") {
		t.Errorf("Run = %q, %v, want three and code 3", out, err)
	}
	t.Setenv("REAP_TEST", "sleep")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Run(ctx, self); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run of a sleeper = %v, want DeadlineExceeded", err)
	}
	if _, err := r.Run(context.Background(), "/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run of nothing = %v, want ErrNotExist", err)
	}
}
