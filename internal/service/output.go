package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"

	"talos/internal/layout"
)

// outputDir holds a named pipe for each container. machined reads it and the
// container's shim writes to it: containerd is not on the way.
const outputDir = layout.OutputDir

// output carries what a container prints to its log.
type output struct {
	path string
	file *os.File
	done sync.WaitGroup
}

// openOutput makes the pipe and starts copying.
func openOutput(dir, id string, out io.Writer) (*output, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	o := &output{path: filepath.Join(dir, id)}
	if err := unix.Mkfifo(o.path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &os.PathError{Op: "mkfifo", Path: o.path, Err: err}
	}
	// Open for both: so it neither waits for a writer nor ends with the last one.
	file, err := os.OpenFile(o.path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	o.file = file
	o.done.Go(func() {
		// It ends with the deadline that Close sets.
		_, _ = io.Copy(out, onlyReader{file})
	})
	return o, nil
}

// onlyReader keeps io.Copy from splicing between files.
type onlyReader struct{ io.Reader }

// close reads what is left and ends the copying.
func (o *output) close() error {
	if err := o.file.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return fmt.Errorf("drain %s: %w", o.path, err)
	}
	o.done.Wait()
	return errors.Join(o.file.Close(), os.Remove(o.path))
}

// creator tells containerd's client where the container's output goes; the
// pipe itself is none of its business.
func (o *output) creator(string) (cio.IO, error) { return pipeIO{o.path}, nil }

type pipeIO struct{ path string }

func (p pipeIO) Config() cio.Config { return cio.Config{Stdout: p.path, Stderr: p.path} }
func (pipeIO) Cancel()              {}
func (pipeIO) Wait()                {}
func (pipeIO) Close() error         { return nil }
