package kmsg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lines reads the kernel's log and calls fn for each record, formatted, until
// there is none left, or with follow until ctx ends. With skip it begins with
// what comes from now on. Records that were overwritten before they were read
// are missing.
func Lines(ctx context.Context, follow, skip bool, fn func(line string) error) error {
	file, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if skip {
		if _, err := file.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("skip the kernel log: %w", err)
		}
	}
	started, err := kernelStart()
	if err != nil {
		return err
	}
	// os.File waits in the poller: closing it ends a blocked read.
	stop := context.AfterFunc(ctx, func() { file.Close() })
	defer stop()
	buf := make([]byte, 8192) // a record is at most this long, and comes whole
	for {
		n, err := next(file, buf, follow)
		switch {
		case errors.Is(err, unix.EPIPE): // records were overwritten; the next read goes on behind them
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("read the kernel log: %w", err)
		}
		line := string(buf[:n])
		if record, err := Parse(line); err == nil {
			line = record.Format(started) + "\n"
		}
		if err := fn(line); err != nil {
			return err
		}
	}
}

// next reads one record; without follow it does not wait for one.
func next(file *os.File, buf []byte, follow bool) (n int, err error) {
	if follow {
		return file.Read(buf)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, readErr = unix.Read(int(fd), buf)
		return true // do not wait, whatever came
	})
	return n, errors.Join(err, readErr)
}

// kernelStart is when the kernel's clock was zero.
func kernelStart() (time.Time, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return time.Time{}, os.NewSyscallError("clock_gettime", err)
	}
	return time.Now().Add(-time.Duration(now.Nano())), nil
}
