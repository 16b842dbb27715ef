// Package peercred tells a gRPC server on a unix socket which user is at the
// other end, as the kernel recorded it when the connection was made (unix(7),
// SO_PEERCRED), and refuses everybody who is not expected.
package peercred

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Info is the process at the other end.
type Info struct {
	credentials.CommonAuthInfo
	PID int32
	UID uint32
}

// AuthType names the mechanism.
func (Info) AuthType() string { return "so_peercred" }

// FromContext returns the caller of an RPC.
func FromContext(ctx context.Context) (Info, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Info{}, false
	}
	info, ok := p.AuthInfo.(Info)
	return info, ok
}

// Credentials admits the listed users and root, nobody else. With no list it
// admits every user, and the service must decide by FromContext.
func Credentials(uids ...uint32) credentials.TransportCredentials {
	return &creds{uids: uids}
}

type creds struct{ uids []uint32 }

func (c *creds) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info, err := read(conn)
	if err != nil {
		return nil, nil, err
	}
	if len(c.uids) > 0 && info.UID != 0 && !slices.Contains(c.uids, info.UID) {
		return nil, nil, fmt.Errorf("user %d (process %d) may not connect to %s", info.UID, info.PID, conn.LocalAddr())
	}
	return conn, info, nil
}

func (c *creds) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info, err := read(conn)
	return conn, info, err
}

func (c *creds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "so_peercred"}
}
func (c *creds) Clone() credentials.TransportCredentials { return &creds{uids: slices.Clone(c.uids)} }
func (c *creds) OverrideServerName(string) error         { return nil }

func read(conn net.Conn) (Info, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return Info{}, errors.New("peer credentials need a unix socket")
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return Info{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Info{}, err
	}
	if credErr != nil {
		return Info{}, os.NewSyscallError("getsockopt SO_PEERCRED", credErr)
	}
	return Info{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		PID:            cred.Pid, UID: cred.Uid,
	}, nil
}

// Listen makes the socket, replacing one that a dead process left. Any user
// may reach it: the mounts decide who sees it, Credentials who is served.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}
