package balance

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// look is how often a waiting connection sees whether it may still wait.
const look = 50 * time.Millisecond

// Door is an address by which connections come in.
type Door struct {
	Listener net.Listener // closed by Serve
	// Classes: only servers of a class below it; 0: all.
	Classes int
	// Hold is how long a connection waits while there is no server for it, if
	// Patient (when set) says that it may.
	Hold    time.Duration
	Patient func() bool
	// Anyway lists the addresses that are tried then, well or not.
	Anyway func() []string
	// Refusal is what a connection gets for which there is nobody.
	Refusal []byte
}

// Serve accepts connections until ctx ends, then ends them all.
func (p *Pool) Serve(ctx context.Context, d Door) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { d.Listener.Close() })()
	for {
		conn, err := d.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors: leave what is open time to end
			p.log.Warn("accept", "address", d.Listener.Addr().String(), "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(2 * look):
			}
			continue
		}
		wg.Go(func() { p.forward(ctx, d, conn) })
	}
}

func (p *Pool) forward(ctx context.Context, d Door, in net.Conn) {
	defer in.Close()
	l, err := p.link(ctx, d, in)
	if err != nil {
		p.log.Debug("no server to forward to", "err", err)
		_, _ = in.Write(d.Refusal) // the client may be gone
		return
	}
	defer l.forget()
	l.run(ctx)
}

var errNobody = errors.New("no server is well")

// link finds a server for a connection, and waits for one if it may.
func (p *Pool) link(ctx context.Context, d Door, in net.Conn) (*link, error) {
	last := errNobody
	for began := time.Now(); ; {
		list, changed := p.pick(d.Classes)
		for _, be := range list {
			l, err := p.connect(ctx, be, in, d.Classes)
			if err == nil {
				return l, nil
			}
			last = err
		}
		if time.Since(began) >= d.Hold || d.Patient != nil && !d.Patient() {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		case <-time.After(look):
		}
	}
	if d.Anyway == nil {
		return nil, last
	}
	for _, address := range d.Anyway() {
		out, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return &link{in: in, out: out, forget: func() {}}, nil
		}
		last = err
	}
	return nil, last
}

// link is a client's connection and the one to its server.
type link struct {
	in, out net.Conn
	classes int // of the servers that could have it, as Door has them
	forget  func()
}

// heard is how long ago something came from the server. The kernel knows: what
// is forwarded is not looked at.
func (l *link) heard() (ago time.Duration, ok bool) {
	c, ok := l.out.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info *unix.TCPInfo
	cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if cerr != nil || err != nil || info.Bytes_received == 0 { // before that, it counts from the connection's beginning
		return 0, false
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond, true
}

func (l *link) close() {
	l.in.Close()
	l.out.Close()
}

// run copies both ways until both sides have ended, the link is closed, or ctx ends.
func (l *link) run(ctx context.Context) {
	defer l.close()
	defer context.AfterFunc(ctx, l.close)()
	done := make(chan struct{})
	go func() { // ends with its connections; run waits for it
		defer close(done)
		l.half(l.in, l.out)
	}()
	l.half(l.out, l.in)
	<-done
}

// half copies one way (splice(2) between the sockets) and passes the end on. A
// broken connection ends both.
func (l *link) half(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if c, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = c.CloseWrite() // it may be closed already
		return
	}
	l.close()
}
