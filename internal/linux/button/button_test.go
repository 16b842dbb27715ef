package button

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	powerOnly = "10000000000000 0\n" // bit 116
	keyboard  = "10000000000000 40000000\n"
)

func TestIsButton(t *testing.T) {
	for bitmap, want := range map[string]bool{powerOnly: true, keyboard: false, "0\n": false, "": false, "8000 10000000000000 0": true} {
		if got, err := isButton(bitmap); got != want || err != nil {
			t.Errorf("isButton(%q) = %t, %v, want %t", bitmap, got, err, want)
		}
	}
	for _, bitmap := range []string{"xyz", "10000000000000000 0", "-1"} {
		if got, err := isButton(bitmap); err == nil && got {
			t.Errorf("isButton(%q) = true", bitmap)
		}
	}
}

// TestWait: a pipe stands for the device; the keyboard beside it is not opened.
func TestWait(t *testing.T) {
	dir := t.TempDir()
	sys, dev := filepath.Join(dir, "sys"), filepath.Join(dir, "dev")
	if err := os.MkdirAll(dev, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string]string{"event0": keyboard, "event1": powerOnly} {
		caps := filepath.Join(sys, name, "device", "capabilities")
		if err := os.MkdirAll(caps, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(caps, "key"), []byte(keys), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(filepath.Join(dev, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	device, err := os.OpenFile(filepath.Join(dev, "event1"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	press := func(code uint16, value int32) {
		t.Helper()
		var b bytes.Buffer
		if err := binary.Write(&b, binary.NativeEndian, event{Type: eventKey, Code: code, Value: value}); err != nil {
			t.Fatal(err)
		}
		if _, err := device.Write(b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}

	press(keyPower, 0) // let go
	press(keyA, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := wait(ctx, sys, dev); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("wait = %v, want it to go on: the button was not pressed", err)
	}
	press(keyPower, 1)
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := wait(ctx, sys, dev); err != nil {
		t.Errorf("wait = %v, want nil: the button was pressed", err)
	}
	if _, err := os.OpenFile(filepath.Join(dev, "event0"), os.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.ENXIO) {
		t.Errorf("open the keyboard for writing = %v, want ENXIO: nobody reads it", err)
	}
}
