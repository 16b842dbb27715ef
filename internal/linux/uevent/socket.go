package uevent

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernelGroup is the multicast group that the kernel itself speaks to.
const kernelGroup = 1

// buffer is how much the kernel keeps for a reader who is busy: thousands of
// messages, more than a machine with many disks has when it starts.
const buffer = 16 << 20

// ErrOverrun says that messages were lost.
var ErrOverrun = errors.New("uevents were lost")

// Socket is a subscription to the kernel's messages.
type Socket struct {
	file *os.File // in Go's poller, so that Close ends a read
	raw  syscall.RawConn
}

// Listen subscribes. The kernel sends to the initial network namespace, and to
// others what is about their own links only.
func Listen() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevents: socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "uevents")
	if err := prepare(fd); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("uevents: %w", err), file.Close())
	}
	return &Socket{file: file, raw: raw}, nil
}

func prepare(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		// Without the right to exceed it, the system's limit has to do.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return fmt.Errorf("uevents: receive buffer: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		return fmt.Errorf("uevents: bind: %w", err)
	}
	return nil
}

// Wait waits until there is something to receive, and leaves it there. After
// Close it is os.ErrClosed.
func (s *Socket) Wait() error {
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		var there bool
		there, failed = pending(fd)
		return there || failed != nil
	})
	if err != nil {
		return os.ErrClosed // the poller's own error for it has no name; no deadline is ever set
	}
	return failed
}

// Drained says whether there is nothing to receive.
func (s *Socket) Drained() (bool, error) {
	var there bool
	var failed error
	err := s.raw.Control(func(fd uintptr) { there, failed = pending(fd) })
	return !there, errors.Join(err, failed)
}

// pending asks without taking anything: a look at the message itself would take
// the news of a loss.
func pending(fd uintptr) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// Receive waits for a message. One that is not the kernel's, or can't be read, is
// ErrMalformed; that and ErrOverrun leave the socket usable. After Close it is
// os.ErrClosed.
func (s *Socket) Receive() (Event, error) {
	buf := make([]byte, maxMessage+1)
	n, from, err := s.read(buf)
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return Event{}, ErrOverrun
	case err != nil:
		return Event{}, fmt.Errorf("uevents: receive: %w", err)
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return Event{}, fmt.Errorf("%w: from a process that plays the kernel", ErrMalformed)
	}
	return Parse(buf[:n])
}

func (s *Socket) read(buf []byte) (n int, from unix.Sockaddr, err error) {
	waitErr := s.raw.Read(func(fd uintptr) bool {
		for {
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil {
		return 0, nil, os.ErrClosed // the poller's own error for it has no name; no deadline is ever set
	}
	return n, from, err
}

// Close ends the subscription and a Receive that waits.
func (s *Socket) Close() error { return s.file.Close() }
