package pidns

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// role is set in the children of this test.
const role = "PIDNS_TEST"

// TestMain lets the test program play the processes of a namespace: each waits
// until its input ends.
func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "init":
		os.Stdout.WriteString("up\n")
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	case "beside": // says its own id and where it is
		here, err := os.Readlink("/proc/self/ns/mnt")
		if err != nil {
			here = err.Error()
		}
		os.Stdout.WriteString(strconv.Itoa(os.Getpid()) + " " + here + "\n")
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	case "shim": // has a child in a namespace further down, and says its own name for it
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.Stdin = []string{role + "=init"}, os.Stdin
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		if err := cmd.Start(); err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString(strconv.Itoa(cmd.Process.Pid) + "\n")
		_ = cmd.Wait() // it ends with the input
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is a process of this test, ended by the test's end.
func child(t *testing.T, as string, flags uintptr, how func(start func() error) error) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{role + "=" + as}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := how(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // one whose init has ended was killed
	})
	said := make([]byte, 100)
	n, err := out.Read(said)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(string(said[:n]))
}

func TestWithin(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	outside, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	at := func(start func() error) error { return start() }
	init, _ := child(t, "init", unix.CLONE_NEWPID|unix.CLONE_NEWNS, at)
	other, _ := child(t, "init", unix.CLONE_NEWPID, at) // not to be mistaken for it
	want := map[int]int{1: init.Process.Pid}
	space, err := os.Readlink("/proc/" + strconv.Itoa(init.Process.Pid) + "/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		cmd, said := child(t, "beside", 0, func(start func() error) error { return Within(init.Process.Pid, start) })
		inner, _, _ := strings.Cut(said, " ")
		id, err := strconv.Atoi(inner)
		if err != nil || id < 2 || id == cmd.Process.Pid {
			t.Fatalf("the child says %q, want its id in the other namespace", said)
		}
		want[id] = cmd.Process.Pid
		if got, err := os.Readlink("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/ns/mnt"); err != nil || got != space || got == outside {
			t.Errorf("mount namespace of the child = %s, %v, want %s", got, err, space)
		}
	}
	// As a container in it is started: by a process that has no other child.
	shim, said := child(t, "shim", 0, func(start func() error) error { return Within(init.Process.Pid, start) })
	container, err := strconv.Atoi(said)
	if err != nil {
		t.Fatalf("the shim says %q", said)
	}
	got, err := Outer(init.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(got[container]) + "/status")
	if err != nil || parse(string(status)).parent != shim.Process.Pid {
		t.Errorf("the container's process %d is %d here: %s, %v, want a child of %d", container, got[container], status, err, shim.Process.Pid)
	}
	delete(got, container)
	maps.DeleteFunc(got, func(_, outer int) bool { return outer == shim.Process.Pid })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Outer (-want +got), the other's init is %d:\n%s", other.Process.Pid, diff)
	}
	if now, err := os.Readlink("/proc/self/ns/mnt"); err != nil || now != outside {
		t.Errorf("own mount namespace = %s, %v, was %s", now, err, outside)
	}
}

func TestGone(t *testing.T) {
	const none = 1 << 22 // more than the kernel gives
	if _, err := Outer(none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Outer of nobody = %v, want ErrNotExist", err)
	}
	called := false
	if err := Within(none, func() error { called = true; return nil }); !errors.Is(err, fs.ErrNotExist) || called {
		t.Errorf("Within nobody = %v, called %t, want ErrNotExist and no call", err, called)
	}
}

func TestParse(t *testing.T) {
	got := parse("Name:\tshim\nPPid:\t17\nNSpid:\t200\t31\t1\n")
	if got.parent != 17 || !cmp.Equal(got.ids, []int{200, 31, 1}) {
		t.Errorf("parse = %+v", got)
	}
}
