package rtnl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Kind is a set of what may change.
type Kind uint8

// What may change.
const (
	KindLink Kind = 1 << iota
	KindAddress
	KindRoute
	KindAll = KindLink | KindAddress | KindRoute
)

// Monitor tells subscribers that something changed, not what: they list
// anew. A notice that was not yet taken stands for all that followed.
type Monitor struct {
	mu   sync.Mutex // guards subs
	subs []subscription
}

type subscription struct {
	kinds Kind
	ch    chan struct{}
}

// Subscribe returns a channel that gets a notice after each change of kinds.
// It lives as long as the Monitor.
func (m *Monitor) Subscribe(kinds Kind) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := subscription{kinds: kinds, ch: make(chan struct{}, 1)}
	m.subs = append(m.subs, s)
	return s.ch
}

func (m *Monitor) notify(kinds Kind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.subs {
		if s.kinds&kinds == 0 {
			continue
		}
		select {
		case s.ch <- struct{}{}:
		default:
		}
	}
}

// Run listens to the kernel until ctx ends. When the kernel had more to say
// than the socket could hold (ENOBUFS), everything counts as changed.
func (m *Monitor) Run(ctx context.Context) error {
	f, err := open()
	if err != nil {
		return fmt.Errorf("listen to rtnetlink: %w", err)
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	m.notify(KindAll) // what happened before we listened
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			m.notify(KindAll)
		case err != nil:
			return fmt.Errorf("listen to rtnetlink: %w", err)
		default:
			if kinds := classify(buf[:n]); kinds != 0 {
				m.notify(kinds)
			}
		}
	}
}

// open makes a socket that the runtime's poller waits on, so that Close
// unblocks Read.
func open() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
		1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// classify says what a datagram of messages is about.
func classify(b []byte) Kind {
	var kinds Kind
	for len(b) >= unix.SizeofNlMsghdr {
		length, kind := number(b), nl.NativeEndian().Uint16(b[4:])
		switch kind {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			kinds |= KindLink
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			kinds |= KindAddress
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			kinds |= KindRoute
		}
		next := (int(length) + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
		if next < unix.SizeofNlMsghdr || next > len(b) {
			break
		}
		b = b[next:]
	}
	return kinds
}
