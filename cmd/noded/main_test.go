package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/api/security"
	"talos/internal/authz"
	"talos/internal/identity"
	"talos/internal/layout"
	"talos/internal/linux/peercred"
	"talos/internal/members"
	respem "talos/internal/resources/pem"
	"talos/internal/resources/secrets"
	"talos/internal/store"
	"talos/internal/trustd/signer"
)

// inside is set in the copy of this test that runs in namespaces of its own.
const inside = "NODED_TEST_INSIDE"

// TestProcesses runs apid, routerd and trustd as on a node: real processes of
// the real binary under their own users, on the node's sockets and ports, the
// store and the signer on the other side.
func TestProcesses(t *testing.T) {
	if os.Getenv(inside) == "" {
		outside(t)
		return
	}
	// A daemon is killed with the thread that started it, so that must not be one
	// that dialAs ends.
	runtime.LockOSThread()
	n := newNode(t)
	for _, d := range []struct {
		name string
		uid  uint32
	}{{"routerd", layout.RouterUID}, {"apid", layout.APIUID}, {"trustd", layout.TrustUID}} {
		n.start(t, d.name, d.uid)
	}
	n.checkAPI(t)
	n.checkTrust(t)
	n.checkRouterUser(t)
	n.checkKill(t)
	time.Sleep(settled + time.Second) // the daemons have given back start-up's garbage
	for _, name := range []string{"routerd", "apid", "trustd"} {
		n.checkMemory(t, name)
	}
	n.measure(t, 1)
	n.measure(t, 8)
	for _, name := range []string{"apid", "routerd", "trustd"} {
		n.stop(t, name)
	}
}

// outside builds the binary and starts the test again in namespaces.
func outside(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	binary := filepath.Join(t.TempDir(), "noded")
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, path := range []string{binary, filepath.Dir(binary), filepath.Dir(filepath.Dir(binary))} {
		if err := os.Chmod(path, 0o755); err != nil { // other users run it
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(binary); err != nil {
		t.Fatal(err)
	} else {
		t.Logf("binary: %.1f MB", float64(info.Size())/1e6)
	}
	self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcesses$", "-test.v", "-test.timeout=10m")
	self.Env = append(os.Environ(), inside+"="+binary)
	self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS}
	out, err := self.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// machined answers Version as fast as it can.
type machined struct {
	machine.UnimplementedMachineServiceServer
}

func (machined) Version(context.Context, *emptypb.Empty) (*machine.VersionResponse, error) {
	return &machine.VersionResponse{Messages: []*machine.Version{{Version: &machine.VersionInfo{Tag: "v0"}}}}, nil
}

type node struct {
	ca      *x509.Certificate
	key     ed25519.PrivateKey
	pool    *x509.CertPool
	mu      sync.Mutex // guards daemons
	daemons map[string]*exec.Cmd
	out     map[string]*bytes.Buffer
}

const token = "abcdef.0123456789abcdef"

// newNode plays machined's part.
func newNode(t *testing.T) *node {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	// A folder for the sockets, where the root may be read-only or shared.
	if _, err := os.Stat("/system"); err != nil {
		check(os.Mkdir("/system", 0o755))
		t.Cleanup(func() { os.Remove("/system") })
	}
	check(unix.Mount("system", "/system", "tmpfs", 0, "mode=0755"))
	t.Cleanup(func() { unix.Unmount("/system", unix.MNT_DETACH) })
	lo, err := netlink.LinkByName("lo")
	check(err)
	check(netlink.LinkSetUp(lo))
	addr, err := netlink.ParseAddr("10.5.0.7/32") // another node's, for trustd
	check(err)
	check(netlink.AddrAdd(lo, addr))

	n := &node{daemons: map[string]*exec.Cmd{}, out: map[string]*bytes.Buffer{}, pool: x509.NewCertPool()}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "os"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	check(err)
	n.key = key
	n.ca, err = x509.ParseCertificate(der)
	check(err)
	n.pool.AddCert(n.ca)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	ca := &respem.CertificateAndKey{
		Crt: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "ED25519 PRIVATE KEY", Bytes: pkcs8}),
	}

	st, err := store.New(t.Context())
	check(err)
	api, trust, root := secrets.NewApiCertificate("api"), secrets.NewTrustdCertificate("trustd"), secrets.NewOSRootSecrets("os")
	server := n.issue(t, "node", nil, x509.ExtKeyUsageServerAuth)
	*api.TypedSpec() = secrets.ApiCertificateSpec{Server: server, AcceptedCAs: []*respem.Certificate{{Crt: ca.Crt}}}
	trust.TypedSpec().Server = server
	*root.TypedSpec() = secrets.OSRootSecretsSpec{IssuingCA: ca, Token: token, CertSANIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	check(st.Create(t.Context(), api))
	check(st.Create(t.Context(), trust))
	check(st.Create(t.Context(), root))

	quiet := slog.New(slog.DiscardHandler)
	go store.Serve(t.Context(), st, layout.StoreSocket, quiet)
	live := members.NewList(filepath.Join(t.TempDir(), "members.json"), quiet)
	live.Set(nil, true)
	go signer.Serve(t.Context(), signer.Options{State: st, Registry: anybody{}, List: live, Log: quiet})
	listener, err := peercred.Listen(layout.MachineSocket)
	check(err)
	behind := grpc.NewServer(grpc.Creds(peercred.Credentials(layout.RouterUID)),
		grpc.UnaryInterceptor(authz.UnaryServerInterceptor()), grpc.StreamInterceptor(authz.StreamServerInterceptor()))
	machine.RegisterMachineServiceServer(behind, machined{})
	go behind.Serve(listener)
	t.Cleanup(behind.Stop)
	return n
}

// anybody admits everybody: bindings are shown in internal/members.
type anybody struct{}

func (anybody) Admit(context.Context, members.Claim) error { return nil }
func (anybody) Holds(context.Context, identity.ID) ([]netip.Addr, bool, error) {
	return nil, false, nil
}
func (anybody) Remove(context.Context, string) ([]string, error) { return nil, nil }

func (n *node) issue(t *testing.T, name string, roles []string, usage x509.ExtKeyUsage) *respem.CertificateAndKey {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name, Organization: roles},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, n.ca, pub, n.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &respem.CertificateAndKey{
		Crt: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
}

// start runs a daemon as machined would: its own user, no capability, its
// socket's folder its own.
func (n *node) start(t *testing.T, name string, uid uint32) {
	t.Helper()
	dir := filepath.Join("/system/run", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	out := &bytes.Buffer{}
	cmd := exec.Command(os.Getenv(inside))
	cmd.Args[0] = "/usr/bin/" + name
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.daemons[name], n.out[name] = cmd, out
	n.mu.Unlock()
}

// stop ends a daemon gracefully.
func (n *node) stop(t *testing.T, name string) {
	t.Helper()
	cmd := n.daemons[name]
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || time.Since(began) > 30*time.Second {
		t.Errorf("%s ended with %v after %v:\n%s", name, err, time.Since(began), n.out[name])
	}
}

func (n *node) dial(t *testing.T, crt *respem.CertificateAndKey, port int) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{RootCAs: n.pool}
	if crt != nil {
		pair, err := tls.X509KeyPair(crt.Crt, crt.Key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", port), grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (n *node) reader(t *testing.T) machine.MachineServiceClient {
	return machine.NewMachineServiceClient(n.dial(t, n.issue(t, "alice", []string{"os:reader"}, x509.ExtKeyUsageClientAuth), layout.APIPort))
}

func (n *node) checkAPI(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := n.reader(t)
	r, err := client.Version(metadata.AppendToOutgoingContext(ctx, "nodes", "127.0.0.1"), &emptypb.Empty{})
	if err != nil || r.GetMessages()[0].GetMetadata().GetHostname() != "127.0.0.1" {
		t.Fatalf("Version = %v, %v", r, err)
	}
	if _, err := client.Reboot(ctx, &machine.RebootRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Reboot by a reader = %v, want PermissionDenied", err)
	}
}

func (n *node) checkTrust(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"worker-1"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", layout.TrustPort),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: n.pool})), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 5, 0, 7)}}
			return d.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "token", token), time.Minute)
	defer cancel()
	r, err := security.NewSecurityServiceClient(conn).Certificate(ctx,
		&security.CertificateRequest{Csr: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})})
	if err != nil || len(r.GetCrt()) == 0 {
		t.Errorf("Certificate = %v", err)
	}
}

// checkRouterUser knocks at routerd and at the signer as somebody else.
func (n *node) checkRouterUser(t *testing.T) {
	for _, socket := range []string{layout.RouterSocket, layout.MachineSocket, layout.SignerSocket} {
		conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return dialAs(layout.TimeUID, socket) }))
		if err != nil {
			t.Fatal(err)
		}
		md := metadata.Pairs("talos-role", "os:admin")
		_, err = machine.NewMachineServiceClient(conn).Version(metadata.NewOutgoingContext(t.Context(), md), &emptypb.Empty{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("user %d at %s = %v, want a refused connection", layout.TimeUID, socket, err)
		}
		conn.Close()
	}
}

// dialAs connects from a thread that is another user for that long.
func dialAs(uid int, socket string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and let it die with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- result{nil, errno}
			return
		}
		conn, err := net.Dial("unix", socket)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// checkKill kills routerd and apid without warning, starts them again, and
// holds that the same client goes on.
func (n *node) checkKill(t *testing.T) {
	client := n.reader(t)
	for name, uid := range map[string]uint32{"routerd": layout.RouterUID, "apid": layout.APIUID} {
		if err := n.daemons[name].Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = n.daemons[name].Wait() // says that it was killed
		n.start(t, name, uid)
		began := time.Now()
		for {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, err := client.Version(ctx, &emptypb.Empty{})
			cancel()
			if err == nil {
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("after %s was killed: %v\n%s", name, err, n.out[name])
			}
		}
		t.Logf("%s: back after %v", name, time.Since(began).Round(time.Millisecond))
	}
}

// maxPrivate bounds a daemon's own memory at rest, in kB.
const maxPrivate = 12 << 10

// checkMemory waits for the rest: on a busy machine that takes longer.
func (n *node) checkMemory(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		kb := n.memory(t, name)
		if atRest := kb["Private_Dirty"] <= maxPrivate; atRest || time.Now().After(end) {
			private := kb["Private_Clean"] + kb["Private_Dirty"]
			t.Logf("%s: rss %d kB, pss %d kB, private %d kB (dirty %d)", name, kb["Rss"], kb["Pss"], private, kb["Private_Dirty"])
			if !atRest {
				t.Errorf("%s has %d kB of its own, over %d", name, kb["Private_Dirty"], maxPrivate)
			}
			return
		}
	}
}

// memory is what the kernel says of a daemon, in kB.
func (n *node) memory(t *testing.T, name string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", n.daemons[name].Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	kb := map[string]int{}
	for line := range strings.Lines(string(data)) {
		key, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); len(fields) == 2 {
			kb[key], _ = strconv.Atoi(fields[0]) // the kernel writes numbers
		}
	}
	return kb
}

// measure reports calls per second and latency; speed is the bench's to
// judge, a test only shows it.
func (n *node) measure(t *testing.T, workers int) {
	client := n.reader(t)
	if _, err := client.Version(t.Context(), &emptypb.Empty{}); err != nil {
		t.Fatal(err)
	}
	const count = 4000
	took := make([][]time.Duration, workers)
	began := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range count / workers {
				start := time.Now()
				if _, err := client.Version(t.Context(), &emptypb.Empty{}); err != nil {
					t.Errorf("Version: %v", err)
					return
				}
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	t.Logf("version, %d workers: %.0f calls/s, p50 %v, p99 %v", workers, float64(len(all))/time.Since(began).Seconds(), all[len(all)/2], all[len(all)*99/100])
}
