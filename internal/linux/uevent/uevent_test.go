package uevent

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
)

func TestParse(t *testing.T) {
	const good = "add@/devices/virtual/block/loop0\x00ACTION=add\x00DEVPATH=/devices/virtual/block/loop0\x00SUBSYSTEM=block\x00NAME=a=b\x00SEQNUM=787\x00"
	got, err := Parse([]byte(good))
	want := Event{Action: Add, DevPath: "/devices/virtual/block/loop0", Subsystem: "block", Seqnum: 787, Env: map[string]string{
		"ACTION": "add", "DEVPATH": "/devices/virtual/block/loop0", "SUBSYSTEM": "block", "NAME": "a=b", "SEQNUM": "787",
	}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Parse: %v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{
		"", "libudev\x00\xfe\xed\xca\xfe", "add@", "@/devices/x", "add/devices/x", "add@devices/x\x00ACTION=add\x00DEVPATH=devices/x\x00",
		"add@/x", "add@/x\x00ACTION=remove\x00DEVPATH=/x\x00", "add@/x\x00ACTION=add\x00DEVPATH=/y\x00",
		"add@/x\x00ACTION=add\x00DEVPATH=/x\x00nothing\x00", "add@/x\x00ACTION=add\x00DEVPATH=/x\x00=v\x00",
		"add@/x\x00ACTION=add\x00DEVPATH=/x\x00SEQNUM=-1\x00", "add@/x\x00" + strings.Repeat("A=1\x00", 3000),
	} {
		if e, err := Parse([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse(%.40q) = %v, %v, want ErrMalformed", bad, e, err)
		}
	}
}

// TestRecorded: all that a machine said when its drivers were loaded is
// understood. Numbers are each other's neighbours at the most out of order.
func TestRecorded(t *testing.T) {
	last, disks := uint64(0), 0
	for _, raw := range recorded.Events(t) {
		e, err := Parse(raw)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if e.Seqnum+10 <= last {
			t.Errorf("%s: number %d after %d", e.DevPath, e.Seqnum, last)
		}
		last = max(last, e.Seqnum)
		if e.Subsystem == "block" && e.Action == Add {
			disks++
		}
	}
	if disks < 10 {
		t.Errorf("%d block devices came, want at least 10", disks)
	}
}

func TestColdplug(t *testing.T) {
	root := recorded.Lay(t, recorded.Machine, "/sys/kernel/uevent_seqnum = 1117\\n", "/sys/devices/uevent = \\n")
	tree := sysfs.FS(filepath.Join(root, "sys"))
	events, err := Coldplug(tree, true)
	if err != nil {
		t.Fatal(err)
	}
	place := map[string]int{}
	for i, e := range events {
		place[e.DevPath] = i
	}
	const disk = "/devices/pci0000:00/0000:00:02.0/virtio0/block/vda"
	if i, j := place[disk], place[disk+"/vda1"]; i == 0 || j == 0 || i > j {
		t.Errorf("the disk is number %d, its partition number %d", i, j)
	}
	got := events[place[disk+"/vda1"]]
	want := Event{Action: Add, DevPath: disk + "/vda1", Subsystem: "block", Env: map[string]string{
		"ACTION": "add", "DEVPATH": disk + "/vda1", "SUBSYSTEM": "block",
		"MAJOR": "254", "MINOR": "1", "DEVNAME": "vda1", "DEVTYPE": "partition", "DISKSEQ": "1", "PARTN": "1", "PARTNAME": "EFI",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the partition (-want +got):\n%s", diff)
	}
	some, err := Coldplug(tree, false)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, e := range some {
		listed[e.DevPath] = true
		if e.Env["MAJOR"] == "" && e.Subsystem != "net" {
			t.Errorf("%s has no node and is no link", e.DevPath)
		}
	}
	for _, e := range events {
		if (e.Env["MAJOR"] != "" || e.Subsystem == "net") && !listed[e.DevPath] {
			t.Errorf("%s is missing among those with nodes, and links", e.DevPath)
		}
	}
	if n, err := Seqnum(tree); n != 1117 || err != nil {
		t.Errorf("Seqnum = %d, %v", n, err)
	}
}

// TestListen: the kernel answers a trigger, on a link of our own making if
// there is none to ask; Close ends who waits.
func TestListen(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	s, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	trigger := func() {
		t.Helper()
		if err := os.WriteFile("/sys/devices/virtual/net/lo/uevent", []byte("change"), 0); err != nil { // every network namespace has it
			t.Fatal(err)
		}
	}
	trigger()
	done, enough := make(chan Event), make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		for {
			err := s.Wait()
			var e Event
			if err == nil {
				e, err = s.Receive()
			}
			switch {
			case errors.Is(err, ErrMalformed), errors.Is(err, ErrOverrun): // others' doing
			case err != nil:
				failed <- err
				return
			default:
				select {
				case done <- e:
				case <-enough: // what others do now is read and forgotten
				}
			}
		}
	}()
	seen := 0
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for deadline := time.After(30 * time.Second); seen == 0; {
		select {
		case e := <-done:
			if e.Env["INTERFACE"] == "lo" && e.Action == Change && e.Seqnum != 0 {
				seen++
			}
		case <-again.C: // the first may have been lost among others' messages
			trigger()
		case <-deadline:
			t.Fatal("no event of lo after a trigger")
		}
	}
	close(enough)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v, want os.ErrClosed", err)
	}
}

func FuzzParse(f *testing.F) {
	for i, raw := range recorded.Events(f) {
		if i%20 == 0 {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := Parse(raw)
		if err != nil {
			return
		}
		if e.Action == "" || !strings.HasPrefix(e.DevPath, "/") || e.Env["ACTION"] != string(e.Action) {
			t.Errorf("Parse(%q) = %+v", raw, e)
		}
		keys := slices.Collect(maps.Keys(e.Env))
		if slices.Contains(keys, "") || len(keys) > maxVars {
			t.Errorf("Parse(%q): keys %q", raw, keys)
		}
	})
}
