// Package button waits for the machine's power button.
//
// The kernel reports it as a key of an input device (Documentation/input/input.rst),
// be it a real one, a server's management controller or a hypervisor that asks
// for a shutdown. Other keys are not read: a device counts only if it has this
// key and no letters, so that no keyboard is listened to.
package button

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/input-event-codes.h.
const (
	eventKey = 1
	keyA     = 30
	keyPower = 116
)

// event is struct input_event on 64-bit machines.
type event struct {
	_     [2]int64 // when
	Type  uint16
	Code  uint16
	Value int32
}

// rescan is how often new devices are looked for: a management controller may
// plug its own in late.
const rescan = 10 * time.Second

// Wait returns when the button is pressed, or with ctx's error.
func Wait(ctx context.Context) error { return wait(ctx, "/sys/class/input", "/dev/input") }

func wait(ctx context.Context, sys, dev string) error {
	var watchers sync.WaitGroup
	defer watchers.Wait() // who reads on would take what the next one waits for
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pressed, gone := make(chan struct{}, 1), make(chan string)
	watched := map[string]bool{}
	for {
		names, err := devices(sys)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !watched[name] {
				watched[name] = true
				watchers.Go(func() {
					if watch(ctx, filepath.Join(dev, name)) {
						select {
						case pressed <- struct{}{}:
						default:
						}
					}
					select {
					case gone <- name:
					case <-ctx.Done():
					}
				})
			}
		}
		select {
		case <-pressed:
			return nil
		case name := <-gone:
			delete(watched, name)
			select { // not in a circle when one can't be opened
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-time.After(rescan):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// devices lists those with a power button.
func devices(sys string) ([]string, error) {
	entries, err := os.ReadDir(sys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "event") {
			continue
		}
		keys, err := os.ReadFile(filepath.Join(sys, e.Name(), "device", "capabilities", "key"))
		if err != nil {
			continue // unplugged meanwhile
		}
		if has, err := isButton(string(keys)); err == nil && has {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// isButton reads the bitmap of a device's keys: words of 64 bits in hexadecimal,
// the highest first.
func isButton(bitmap string) (bool, error) {
	var all big.Int
	for _, word := range strings.Fields(bitmap) {
		var w big.Int
		if _, ok := w.SetString(word, 16); !ok || w.BitLen() > 64 {
			return false, fmt.Errorf("bitmap of keys %q: word %q is no hexadecimal number of 64 bits", bitmap, word)
		}
		all.Lsh(&all, 64).Or(&all, &w)
	}
	return all.Bit(keyPower) == 1 && all.Bit(keyA) == 0, nil
}

// watch says whether the button of a device was pressed before it went away.
func watch(ctx context.Context, path string) bool {
	// Non-blocking, so that Close ends a read.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	stop := context.AfterFunc(ctx, func() { file.Close() })
	defer stop()
	for {
		var e event
		if err := binary.Read(file, binary.NativeEndian, &e); err != nil {
			return false
		}
		if e.Type == eventKey && e.Code == keyPower && e.Value == 1 {
			return true
		}
	}
}
