package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leaderless, in the environment, makes the test's program a process whose first
// thread has ended, and which goes on until it is killed.
const leaderless = "TEST_LEADERLESS"

func init() {
	if os.Getenv(leaderless) == "" {
		return
	}
	go func() { // on another thread: the first is locked to what calls init
		fmt.Println("goes on")
		select {}
	}()
	runtime.LockOSThread()
	unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

// TestLeaderless: a process has not ended with its first thread.
func TestLeaderless(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), leaderless+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "goes on\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	for first := "R"; first != "Z"; time.Sleep(time.Millisecond) {
		fields, err := statFields(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		first = fields[0]
	}
	p, err := Find(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	h, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := h.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if sig := p.Reap(); sig != unix.SIGKILL {
		t.Errorf("Reap = %v, want %v", sig, unix.SIGKILL)
	}
}

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Find(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := p
	other.Start++
	if _, err := other.Open(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Open of an earlier owner of the id = %v, want ErrProcessDone", err)
	}
	h, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait for one that runs = %v, want the deadline's error", err)
	}
	h2, err := p.Open() // a deadline that passed ends the first's use
	if err != nil {
		t.Fatal(err)
	}
	defer h2.Close()
	if err := h2.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := h2.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.Alive() {
		t.Error("Alive of one that ended and waits for its parent = true")
	}
	if sig := p.Reap(); sig != unix.SIGUSR1 {
		t.Errorf("Reap = %v, want %v", sig, unix.SIGUSR1)
	}
	if sig := p.Reap(); sig != 0 {
		t.Errorf("Reap again = %v, want none", sig)
	}
}

// TestRecord: a record is of one process, and of no other that has its id.
func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "process.json")
	if p, running := Recorded(path); running || p != (ID{}) {
		t.Errorf("Recorded without a record = %v, %v", p, running)
	}
	self, err := Find(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Record(path); err != nil {
		t.Fatal(err)
	}
	if p, running := Recorded(path); !running || p != self {
		t.Errorf("Recorded = %v, %v; want %v, running", p, running, self)
	}
	other := self
	other.Boot += "x" // before the host restarted
	if err := other.Record(path); err != nil {
		t.Fatal(err)
	}
	if _, running := Recorded(path); running {
		t.Error("a process of another boot runs")
	}
}
