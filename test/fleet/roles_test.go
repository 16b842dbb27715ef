//go:build !race

package fleet

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/internal/apid"
	"talos/internal/audit"
	"talos/internal/authz"
	"talos/internal/linux/peercred"
	"talos/internal/routerd"
	"talos/internal/store"
)

// The processes of a node are this very program, started again. Where it is
// told by the environment what to be:
const (
	roleVariable = "FLEET_ROLE"
	dirVariable  = "FLEET_DIR"     // of the sockets
	addrVariable = "FLEET_ADDRESS" // of apid
)

var roles = map[string]func(ctx context.Context, dir string) error{
	"apid": runAPI, "routerd": runRouter, "machined": runMachine,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	runtime.GOMAXPROCS(1)             // as cmd/noded does
	debug.SetMemoryLimit(56 << 20)    // as cmd/machined gives apid
	usage := make(chan os.Signal, 10) // SIGUSR1 asks for a line
	signal.Notify(usage, syscall.SIGUSR1)
	go func() {
		for range usage {
			fmt.Println("usage:", runtime.NumGoroutine())
		}
	}()
	if err := role(ctx, os.Getenv(dirVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	storeSocket, routerSocket, machineSocket = "store.sock", "router.sock", "machined.sock"
)

func runAPI(ctx context.Context, dir string) error {
	st, err := store.DialSocket(filepath.Join(dir, storeSocket))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", os.Getenv(addrVariable))
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(dir, "audit.log"))
	if err != nil {
		return err
	}
	records := audit.New(file)
	defer records.Close()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return apid.Serve(ctx, log, apid.Config{Listener: listener, Store: st, Router: filepath.Join(dir, routerSocket), Audit: records})
}

func runRouter(ctx context.Context, dir string) error {
	listener, err := peercred.Listen(filepath.Join(dir, routerSocket))
	if err != nil {
		return err
	}
	return routerd.Serve(ctx, slog.New(slog.DiscardHandler), listener, routerd.Config{
		Credentials: peercred.Credentials(uint32(os.Getuid())), Machine: filepath.Join(dir, machineSocket),
		Network: filepath.Join(dir, "none"), Time: filepath.Join(dir, "none"),
	})
}

func runMachine(ctx context.Context, dir string) error {
	listener, err := net.Listen("unix", filepath.Join(dir, machineSocket))
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(authz.UnaryServerInterceptor()), grpc.StreamInterceptor(authz.StreamServerInterceptor()),
		grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20))
	machine.RegisterMachineServiceServer(server, standIn{})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(listener)
}

// standIn answers at once.
type standIn struct {
	machine.UnimplementedMachineServiceServer
}

func (standIn) Version(context.Context, *emptypb.Empty) (*machine.VersionResponse, error) {
	return version("stand-in"), nil
}

func version(tag string) *machine.VersionResponse {
	return &machine.VersionResponse{Messages: []*machine.Version{{
		Version:  &machine.VersionInfo{Tag: tag, Sha: "0123456789ab", Built: "2026-01-01", GoVersion: "go1.26", Os: "linux", Arch: "amd64"},
		Platform: &machine.PlatformInfo{Name: "container", Mode: "container"},
	}}}
}

// Logs streams as many chunks as lines are asked for.
func (standIn) Logs(r *machine.LogsRequest, stream grpc.ServerStreamingServer[common.Data]) error {
	chunk := &common.Data{Bytes: make([]byte, chunkSize)}
	for range r.GetTailLines() {
		if err := stream.Send(chunk); err != nil {
			return err
		}
	}
	return nil
}

const chunkSize = 32 << 10

// process is one of a node's programs.
type process struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner // of its standard output
}

func startProcess(t testing.TB, role, dir string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, roleVariable+"="+role, dirVariable+"="+dir)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "signal") {
			t.Errorf("%s: %v", role, err)
		}
	})
	return &process{cmd: cmd, lines: bufio.NewScanner(out)}
}

// goroutines asks the process how many it has.
func (p *process) goroutines(t testing.TB) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for p.lines.Scan() {
		if text, ok := strings.CutPrefix(p.lines.Text(), "usage: "); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no line of usage: %v", p.lines.Err())
	return 0
}

// files is the number of open file descriptors.
func (p *process) files(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// memory reads a line of proc_pid_status(5), in MB: VmRSS, or VmHWM for the
// most there ever was.
func (p *process) memory(t testing.TB, name string) float64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name+":" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib * 1024 / 1e6
		}
	}
	t.Fatalf("no %s in the status of a process", name)
	return 0
}

func eventually(t testing.TB, within time.Duration, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatal(err)
}
