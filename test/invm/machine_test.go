package invm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/image"
	"talos/internal/media"
)

// built is the kernel that was built: the file that TALOS_KERNEL names, or the
// one in _out. REQUIRE_IMAGE=1 (CI) makes a missing one a failure.
func built(t *testing.T) string {
	t.Helper()
	name := os.Getenv("TALOS_KERNEL")
	if name == "" {
		name = filepath.Join("..", "..", "_out", "kernel", "vmlinuz")
	}
	if _, err := os.Stat(name); err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatalf("no kernel was built, and REQUIRE_IMAGE=1: %v", err)
		}
		t.Skipf("no kernel was built: %v", err)
	}
	return name
}

// look is exec.LookPath. REQUIRE_IMAGE=1 makes a missing program a failure.
func look(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatalf("%v, and REQUIRE_IMAGE=1", err)
		}
		t.Skip(err)
	}
	return path
}

// compile makes a program for the machine, which has no C library of its own.
func compile(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// root writes the machine's root file system: guest as /init, programs of this
// host with their libraries, and what add adds.
func root(t *testing.T, programs []string, add func(*image.Tree)) string {
	t.Helper()
	dir := t.TempDir()
	init, name := filepath.Join(dir, "init"), filepath.Join(dir, "root")
	compile(t, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", init, "./guest")
	var tree image.Tree
	tree.MergeUsr()
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "system", "var"} {
		tree.Dir(d, 0o755)
	}
	tree.File("init", init, 0o755)
	tree.File("etc/mke2fs.conf", "/etc/mke2fs.conf", 0o644)
	tree.Data("etc/passwd", "root:x:0:0::/tmp:/sbin/nologin\n")
	tree.Data("etc/group", "root:x:0:\n")
	for _, p := range programs {
		tree.Program(look(t, p))
	}
	if add != nil {
		add(&tree)
	}
	var tar bytes.Buffer
	if err := tree.WriteTar(&tar); err != nil {
		t.Fatal(err)
	}
	// Not packed: it is read once, in emulation.
	cmd := exec.Command(look(t, "mksquashfs"), "-", name, "-tar", "-comp", "zstd", "-noI", "-noD", "-noF", "-noX", "-no-xattrs", "-no-progress", "-quiet")
	cmd.Stdin = &tar
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return name
}

// A vm is a virtual machine that starts our kernel, without firmware, and ends
// with the first reset. It is emulated everywhere: what is tested is the same.
type vm struct {
	console transcript
	stdin   io.Writer
	monitor *os.File
	ended   chan error
}

// start turns a machine on, whose guest gets one argument. It is off at the end
// of the test, whatever happens.
func start(t *testing.T, limit time.Duration, root, argument string, args ...string) *vm {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	m := &vm{monitor: os.NewFile(uintptr(pair[0]), "monitor"), ended: make(chan error, 1)}
	theirs := os.NewFile(uintptr(pair[1]), "monitor")
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	cmd := exec.CommandContext(ctx, look(t, "qemu-system-x86_64"), append([]string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536", "-nodefaults", "-display", "none", "-no-reboot",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=monitor,fd=3", "-mon", "chardev=monitor,mode=control",
		"-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset",
		"-drive", "if=none,id=root,format=raw,readonly=on,file=" + root, "-device", "virtio-blk-pci,drive=root",
		"-kernel", built(t),
		"-append", media.Arguments + " panic=-1 root=/dev/vda rootfstype=squashfs ro init=/init -- " + argument,
	}, args...)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles, cmd.WaitDelay = &m.console, &m.console, []*os.File{theirs}, 5*time.Second
	if m.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { m.ended <- errors.Join(cmd.Wait(), ctx.Err()) }()
	t.Cleanup(func() {
		cancel()
		<-m.ended
		m.monitor.Close()
		t.Logf("the machine ran for %v", time.Since(began).Round(time.Second))
		if t.Failed() {
			t.Logf("console:\n%s", m.console.String())
		}
	})
	if _, err := m.monitor.WriteString(`{"execute":"qmp_capabilities"}` + "\n"); err != nil {
		t.Fatal(err)
	}
	return m
}

// wait returns when the machine is off.
func (m *vm) wait(t *testing.T) {
	t.Helper()
	err := <-m.ended
	m.ended <- nil // for the cleanup
	if err != nil {
		t.Errorf("the machine: %v", err)
	}
}

// says waits until the console has shown a text.
func (m *vm) says(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !strings.Contains(m.console.String(), text); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-m.ended:
			m.ended <- nil
			t.Fatalf("the machine ended (%v) and never said %q", err, text)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("the machine has not said %q", text)
		}
	}
}

// An event is something that happened to the machine, as QEMU tells it.
type event struct {
	Event     string
	Data      struct{ Reason, Action string }
	Timestamp struct{ Seconds, Microseconds int64 }
}

func (e event) time() time.Time {
	return time.Unix(e.Timestamp.Seconds, e.Timestamp.Microseconds*int64(time.Microsecond))
}

// until reads events up to the one of a name, and returns them all.
func (m *vm) until(t *testing.T, name string, limit time.Duration) []event {
	t.Helper()
	if err := m.monitor.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	var all []event
	for d := json.NewDecoder(m.monitor); ; {
		var e event
		if err := d.Decode(&e); err != nil {
			t.Fatalf("events after %v, without %s: %v", all, name, err)
		}
		if e.Event != "" {
			all = append(all, e)
		}
		if e.Event == name {
			return all
		}
	}
}

// transcript keeps what is written to it.
type transcript struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (c *transcript) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *transcript) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}
