package udevd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// watch tells which nodes of block devices were closed after writing: the
// kernel has no message for a file system that was made.
type watch struct {
	file    *os.File
	dev     string
	written chan string // names below dev; an empty one stands for all

	mu    sync.Mutex // guards the fields below
	fd    int
	names map[int32]string
}

func newWatch(dev string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return &watch{file: os.NewFile(uintptr(fd), "inotify"), dev: dev, written: make(chan string, 64), fd: fd, names: map[int32]string{}}, nil
}

// add watches a node too; one that is gone, or watched already, is no matter.
func (w *watch) add(node string) {
	if w == nil || node == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		return
	}
	if wd, err := unix.InotifyAddWatch(w.fd, filepath.Join(w.dev, node), unix.IN_CLOSE_WRITE); err == nil {
		w.names[int32(wd)] = node
	}
}

// run reads until the watch is closed.
func (w *watch) run(ctx context.Context) {
	buf := make([]byte, 4096)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return // closed: inotify itself has no other errors here
		}
		for _, node := range w.parse(buf[:n]) {
			select {
			case w.written <- node:
			case <-ctx.Done():
				return
			}
		}
	}
}

// parse reads inotify(7)'s records: watch, mask, cookie, length of a name.
func (w *watch) parse(b []byte) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for len(b) >= unix.SizeofInotifyEvent {
		wd, mask, length := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
		b = b[min(len(b), unix.SizeofInotifyEvent+int(length)):]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			out = append(out, "")
		case mask&unix.IN_IGNORED != 0: // the node is gone
			delete(w.names, wd)
		case w.names[wd] != "":
			out = append(out, w.names[wd])
		}
	}
	return out
}

// Close ends run.
func (w *watch) Close() error {
	w.mu.Lock()
	w.fd = -1
	w.mu.Unlock()
	if err := w.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
