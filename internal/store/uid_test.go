package store

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/cosi-project/runtime/pkg/state/protobuf/client"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"talos/internal/layout"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
)

// dialAs connects as another user: the system call changes the thread alone,
// which dies with the goroutine, and the kernel notes who connects.
func dialAs(uid int, socket string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- result{err: errno}
			return
		}
		conn, err := net.Dial("unix", socket)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// viewOf is the store as a user gets it through the socket.
func viewOf(t *testing.T, uid int, socket string) state.State {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///store", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return dialAs(uid, socket) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return state.WrapCore(client.NewAdapter(v1alpha1.NewStateClient(conn)))
}

// needRoot skips the test for users that the store does not know, unless
// REQUIRE_PRIV is set.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_PRIV") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// TestOtherUsers goes through a real socket as each daemon's user.
func TestOtherUsers(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	st, err := New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // any user may look for the socket
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s.sock")
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, st, socket, slog.New(slog.DiscardHandler)) }()
	defer func() { cancel(); <-served }()
	for ctx.Err() == nil {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	root := secrets.NewOSRootSecrets("os")
	wanted := network.NewAddressSpec(network.ConfigNamespace, "configuration/eth0")
	for _, err := range []error{st.Create(ctx, root), st.Create(ctx, wanted)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, uid := range []int{layout.APIUID, layout.TrustUID, layout.NetworkUID, layout.TimeUID, layout.RouterUID, 65534} {
		view := viewOf(t, uid, socket)
		for what, err := range map[string]error{
			"reads the CA's key":    func() error { _, err := view.Get(ctx, root.Metadata()); return err }(),
			"lists secrets":         func() error { _, err := view.List(ctx, root.Metadata()); return err }(),
			"watches the CA's key":  view.Watch(ctx, root.Metadata(), make(chan state.Event)),
			"writes a secret":       view.Create(ctx, secrets.NewOSRootSecrets("mine")),
			"destroys a secret":     view.Destroy(ctx, root.Metadata()),
			"pins a secret":         view.AddFinalizer(ctx, root.Metadata(), "me"),
			"drops what is wanted":  view.Destroy(ctx, wanted.Metadata()),
			"ends what is wanted":   func() error { _, err := view.Teardown(ctx, wanted.Metadata()); return err }(),
			"adds to what is asked": view.Create(ctx, network.NewAddressSpec(network.ConfigNamespace, "configuration/evil")),
		} {
			if err == nil {
				t.Errorf("user %d %s", uid, what)
			} else if state.IsNotFoundError(err) {
				t.Errorf("user %d %s: %v (%v), want a refusal", uid, what, err, status.Code(err))
			}
		}
	}
	own := viewOf(t, layout.NetworkUID, socket)
	if err := own.Create(ctx, network.NewAddressSpec(network.ConfigNamespace, "operator/dhcp4/eth0")); err != nil {
		t.Errorf("networkd's user writes a lease: %v", err)
	}
	if _, err := own.Get(ctx, wanted.Metadata()); err != nil {
		t.Errorf("networkd's user reads what is wanted: %v", err)
	}
	if got, err := st.Get(ctx, root.Metadata()); err != nil || !got.Metadata().Finalizers().Empty() {
		t.Errorf("the secret is now %v, %v", got, err)
	}
}
