package udevd

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/internal/disk"
	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
	"talos/internal/linux/uevent"
)

// spoken are messages that a test speaks in the kernel's place.
type spoken struct {
	events chan uevent.Event
	lost   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func speaker() *spoken {
	return &spoken{events: make(chan uevent.Event, 100), lost: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (s *spoken) Wait() error {
	for len(s.events) == 0 && len(s.lost) == 0 {
		select {
		case <-s.closed:
			return os.ErrClosed
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

func (s *spoken) Receive() (uevent.Event, error) {
	select {
	case e := <-s.events:
		return e, nil
	case <-s.lost:
		return uevent.Event{}, uevent.ErrOverrun
	case <-s.closed:
		return uevent.Event{}, os.ErrClosed
	}
}

func (s *spoken) Drained() (bool, error) { return len(s.events) == 0 && len(s.lost) == 0, nil }

func (s *spoken) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// stage is a Daemon over the recorded machine, with /dev in a folder.
type stage struct {
	*Daemon
	root string
	say  *spoken
	end  func() error
}

func play(t *testing.T, extra ...string) *stage {
	t.Helper()
	root := recorded.Lay(t, append([]string{recorded.Machine, "/sys/kernel/uevent_seqnum = 5\\n"}, extra...)...)
	s := &stage{root: root, say: speaker()}
	s.Daemon = New(Options{
		Log: slog.New(slog.DiscardHandler), KernelNames: true, Accounts: accounts(t),
		Dev: filepath.Join(root, "dev"), Sys: filepath.Join(root, "sys"), Run: filepath.Join(root, "run/udev"),
	})
	s.open = func() (source, error) { return s.say, nil }
	return s
}

// run starts the Daemon and waits until it has settled.
func (s *stage) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ended := false
	s.end = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	s.settle(t)
}

func (s *stage) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := s.Settle(ctx); err != nil {
		t.Fatal(err)
	}
}

// leads is what a link below /dev leads to; empty if there is none.
func (s *stage) leads(name string) string {
	to, err := os.Readlink(filepath.Join(s.root, "dev", name))
	if err != nil {
		return ""
	}
	return to
}

func event(action uevent.Action, path, subsystem string, env ...string) uevent.Event {
	e := uevent.Event{Action: action, DevPath: path, Subsystem: subsystem, Env: map[string]string{"ACTION": string(action), "DEVPATH": path, "SUBSYSTEM": subsystem}}
	for _, pair := range env {
		k, v, _ := strings.Cut(pair, "=")
		e.Env[k] = v
	}
	return e
}

const sda = "/devices/pci0000:00/0000:00:1f.2/ata2/host2/target2:0:0/2:0:0:0/block/sda"

// TestDaemon: what is there at the start, comes, goes, and goes unnoticed.
func TestDaemon(t *testing.T) {
	s := play(t)
	s.run(t)
	if got := s.leads("disk/by-path/pci-0000:00:1f.2-ata-2"); got != "../../sda" {
		t.Errorf("at the start the link leads to %q", got)
	}
	if data, err := os.ReadFile(filepath.Join(s.root, "run/udev/data/b8:0")); err != nil || !strings.Contains(string(data), "\nE:ID_SERIAL=QEMUSATA_SATA001\n") {
		t.Errorf("record of the disk: %q, %v", data, err)
	}
	tick := s.Subscribe()
	s.say.events <- event(uevent.Remove, sda, "block", "MAJOR=8", "MINOR=0", "DEVNAME=sda", "DEVTYPE=disk", "SEQNUM=6")
	s.settle(t)
	select {
	case <-tick: // it comes behind what is settled
	case <-time.After(30 * time.Second):
		t.Error("no tick after a disk went")
	}
	if got := s.leads("disk/by-path/pci-0000:00:1f.2-ata-2"); got != "" {
		t.Errorf("after it went the link leads to %q", got)
	}
	if _, err := os.Stat(filepath.Join(s.root, "run/udev/data/b8:0")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its record: %v", err)
	}
	s.say.events <- event(uevent.Add, sda, "block", "MAJOR=8", "MINOR=0", "DEVNAME=sda", "DEVTYPE=disk")
	s.settle(t)
	if got := s.leads("disk/by-id/ata-QEMUSATA_SATA001"); got != "../../sda" {
		t.Errorf("after it came again the link leads to %q", got)
	}
	// Two disks go while nobody listens.
	for _, gone := range []string{"dev/block/8:0", "dev/block/8:16"} {
		if err := os.Remove(filepath.Join(s.root, "sys", gone)); err != nil {
			t.Fatal(err)
		}
	}
	s.say.lost <- struct{}{}
	s.settle(t)
	if got := s.leads("disk/by-id/ata-QEMUSATA_SATA001") + s.leads("disk/by-id/wwn-0x5000c500aabbccdd"); got != "" {
		t.Errorf("after they went unnoticed the links lead to %q", got)
	}
	if got := s.leads("disk/by-id/virtio-VIRT0001"); got != "../../vda" {
		t.Errorf("that of another disk leads to %q", got)
	}
}

// TestRules: new rules apply to what is there, bad ones change nothing.
func TestRules(t *testing.T) {
	s := play(t)
	if err := s.SetRules([]string{`KERNEL=="sda", ACTION=="add", SYMLINK+="mine/first"`}); err != nil {
		t.Fatal(err)
	}
	s.run(t)
	if got := s.leads("mine/first"); got != "../sda" {
		t.Errorf("the link of a rule leads to %q", got)
	}
	if err := s.SetRules([]string{`KERNEL=="sda", RUN+="x"`}); err == nil {
		t.Error("a rule with RUN is taken")
	}
	if err := s.SetRules([]string{`KERNEL=="sdb", ACTION=="add", SYMLINK+="mine/second", GROUP="nobody-knows"`}); err != nil {
		t.Fatal(err)
	}
	s.settle(t)
	if first, second := s.leads("mine/first"), s.leads("mine/second"); first != "" || second != "../sdb" {
		t.Errorf("after other rules the links lead to %q and %q", first, second)
	}
	want := []string{"/devices/pci0000:00/0000:00:04.0/virtio1/host0/target0:0:1/0:0:1:2/block/sdb: no group \"nobody-knows\""}
	if diff := cmp.Diff(want, s.Problems()); diff != "" {
		t.Errorf("Problems (-want +got):\n%s", diff)
	}
	if err := s.SetRules(nil); err != nil {
		t.Fatal(err)
	}
	s.settle(t)
	if _, err := os.Lstat(filepath.Join(s.root, "dev/mine")); !errors.Is(err, fs.ErrNotExist) || s.Problems() != nil {
		t.Errorf("without rules: %v, problems %q", err, s.Problems())
	}
}

// TestInTheWay: what is no link stays, and it is told.
func TestInTheWay(t *testing.T) {
	s := play(t, "/dev/disk/by-id/virtio-VIRT0001 = somebody's file\\n", "/dev/disk/by-diskseq/1 -> ../../elsewhere")
	s.run(t)
	data, err := os.ReadFile(filepath.Join(s.root, "dev/disk/by-id/virtio-VIRT0001"))
	if err != nil || string(data) != "somebody's file\n" {
		t.Errorf("the file is now %q, %v", data, err)
	}
	if got := s.Problems(); len(got) != 1 || !strings.Contains(got[0], "file already exists, and is no link") {
		t.Errorf("Problems = %q, want the file", got)
	}
	if got := s.leads("disk/by-diskseq/1"); got != "../../vda" {
		t.Errorf("a link that led elsewhere leads to %q", got)
	}
}

// TestSettle: it ends with its context, and says what is left.
func TestSettle(t *testing.T) {
	s := play(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Settle(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "at the start") {
		t.Errorf("Settle before Run = %v", err)
	}
	s.run(t)
	if !s.Settled() {
		t.Error("not settled after Settle")
	}
	s.count(1)
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Settle(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 messages") {
		t.Errorf("Settle with a message that is not dealt with = %v", err)
	}
	s.count(-1)
}

// cursed is a source whose messages nobody thought of.
type cursed struct{ *spoken }

func (cursed) Receive() (uevent.Event, error) { panic("not thought of") }

// TestPanic: what goes wrong with a message ends Run, not the first process.
func TestPanic(t *testing.T) {
	s := play(t)
	s.open = func() (source, error) { return cursed{s.say}, nil }
	s.say.events <- uevent.Event{}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "not thought of") {
		t.Errorf("Run = %v, want the panic", err)
	}
}

// TestHungDisk: a disk that does not answer is named by Settle and holds nobody
// else; when it answers at last, that counts. A look that panics is no harm.
func TestHungDisk(t *testing.T) {
	s := play(t)
	answer := make(chan struct{})
	s.lookAt = func(_ string, whole sysfs.Device) []finding {
		switch whole.Name() {
		case "sda":
			<-answer
		case "sdc":
			panic("what is on it")
		}
		return []finding{{dev: whole, probe: &disk.Device{Volume: disk.Volume{Kind: "xfs", Label: "on-" + whole.Name()}}}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	s.await(t, "disk/by-label/on-sdb", "../../sdb")
	s.say.events <- event(uevent.Remove, "/devices/virtual/misc/fuse", "misc", "MAJOR=10", "MINOR=229", "DEVNAME=fuse")
	s.await(t, "char/10:229", "")
	for deadline := time.Now().Add(30 * time.Second); ; {
		brief, end := context.WithTimeout(ctx, 100*time.Millisecond)
		err := s.Settle(brief)
		end()
		if errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "disk sda is being looked at") {
			break
		}
		if err == nil || time.Now().After(deadline) { // what else is left will be dealt with
			t.Fatalf("Settle = %v, want the disk named", err)
		}
	}
	close(answer)
	s.settle(t)
	if got := s.leads("disk/by-label/on-sda"); got != "../../sda" {
		t.Errorf("after the disk has answered its label leads to %q", got)
	}
}

// TestStops: nothing is left running, and it can be run again.
func TestStops(t *testing.T) {
	s := play(t)
	before := runtime.NumGoroutine()
	s.run(t)
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	s.say = speaker()
	s.run(t)
	s.say.events <- event(uevent.Remove, sda, "block", "MAJOR=8", "MINOR=0", "DEVNAME=sda", "DEVTYPE=disk")
	s.settle(t)
	if got := s.leads("disk/by-id/ata-QEMUSATA_SATA001"); got != "" {
		t.Errorf("the second time the link of a disk that went leads to %q", got)
	}
}

// TestSourceFails: Run ends with the error, for its owner to start it again.
func TestSourceFails(t *testing.T) {
	s := play(t)
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	s.settle(t)
	if err := s.say.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("Run = %v, want os.ErrClosed", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Run goes on without a source")
	}
}

// TestWatchParse: records of inotify, whole and cut short.
func TestWatchParse(t *testing.T) {
	w := &watch{names: map[int32]string{1: "sda", 2: "sdb"}}
	record := func(wd, mask, length byte, name string) string {
		return string([]byte{wd, 0, 0, 0, mask, 0, 0, 0, 0, 0, 0, 0, length, 0, 0, 0}) + name
	}
	got := w.parse([]byte(record(1, 8, 0, "") + record(3, 8, 4, "x\x00\x00\x00") + record(2, 8, 0, "") + record(1, 8, 200, "x")))
	if diff := cmp.Diff([]string{"sda", "sdb", "sda"}, got); diff != "" {
		t.Errorf("parse (-want +got):\n%s", diff)
	}
	gone := record(2, 0, 0, "")
	gone = gone[:5] + "\x80" + gone[6:]
	if got := w.parse([]byte(gone + record(2, 8, 0, "") + record(1, 8, 0, "")[:15])); got != nil || w.names[2] != "" {
		t.Errorf("after the node went: %q, names %v", got, w.names)
	}
	overflow := record(0xff, 0, 0, "")
	overflow = overflow[:5] + "\x40" + overflow[6:]
	if diff := cmp.Diff([]string{""}, w.parse([]byte(overflow))); diff != "" {
		t.Errorf("an overflow (-want +got):\n%s", diff)
	}
}
