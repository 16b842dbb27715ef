package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"talos/internal/logs"
	"talos/internal/resources/cluster"
	"talos/internal/resources/config"
	"talos/internal/resources/k8s"
	"talos/internal/resources/network"
	"talos/internal/resources/pem"
	"talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
	"talos/internal/service"
	"talos/internal/store"
)

// pty is a pair of terminals: path is what a console is opened by, the other
// end is what stands before the person.
type pty struct {
	path   string
	master *os.File

	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func newPty(t *testing.T, cols, rows int) *pty {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(cols), Row: uint16(rows)})); err != nil {
		t.Fatal(err)
	}
	p := &pty{path: "/dev/pts/" + strconv.Itoa(number), master: os.NewFile(uintptr(fd), "ptmx")}
	keep, err := os.OpenFile(p.path, os.O_RDWR|unix.O_NOCTTY, 0) // else reading ends when the console closes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keep.Close(); p.master.Close() })
	return p
}

// read collects what is written from now on.
func (p *pty) read() {
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := p.master.Read(buf)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.text.Write(buf[:n])
			p.mu.Unlock()
		}
	}()
}

func (p *pty) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// glass plays what a terminal does with what the painter writes, and nothing else.
func glass(t *testing.T, text string, cols, rows int) []string {
	t.Helper()
	grid := make([][]rune, rows)
	blank := func(y int) { grid[y] = []rune(strings.Repeat(" ", cols)) }
	for y := range grid {
		blank(y)
	}
	x, y := 0, 0
	for len(text) > 0 {
		command, ok := strings.CutPrefix(text, "\x1b[")
		if !ok {
			r := []rune(text)[0]
			if x >= cols || r < ' ' {
				t.Fatalf("%q at column %d", r, x)
			}
			grid[y][x] = r
			x, text = x+1, strings.TrimPrefix(text, string(r))
			continue
		}
		end := strings.IndexAny(command, "ABCDEFGHJKhlmr")
		if end < 0 {
			break // the rest has not come yet
		}
		args, what := command[:end], command[end]
		text = command[end+1:]
		switch {
		case what == 'H':
			var row, col int
			if _, err := fmt.Sscanf(args, "%d;%d", &row, &col); err != nil {
				t.Fatalf("command %q", command[:end+1])
			}
			x, y = col-1, row-1
		case what == 'J' && args == "2":
			for y := range grid {
				blank(y)
			}
		case what == 'K' && args == "2":
			blank(y)
		case what == 'm', what == 'r', what == 'l' && args == "?25", what == 'h' && args == "?25":
		default:
			t.Fatalf("command %q", command[:end+1])
		}
	}
	var lines []string
	for _, row := range grid {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	return lines
}

// desk is a machine with two consoles.
type desk struct {
	state   state.State
	logs    *logs.Manager
	screen  *pty
	serial  *pty
	now     []string
	mu      sync.Mutex // guards now
	options Options
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{state: st, logs: logs.New(t.TempDir()), screen: newPty(t, 80, 25), serial: newPty(t, 80, 25)}
	dev := t.TempDir()
	for name, p := range map[string]*pty{"tty1": d.screen, "ttyS0": d.serial} {
		if err := os.Symlink(p.path, filepath.Join(dev, name)); err != nil {
			t.Fatal(err)
		}
	}
	active := filepath.Join(dev, "active")
	if err := os.WriteFile(active, []byte("tty0 ttyS0 ttyS7\n"), 0o600); err != nil { // ttyS7 is not there
		t.Fatal(err)
	}
	d.options = Options{
		State: st, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Logs: d.logs, Services: sick{}, Active: active, Dev: dev,
		Activity: func() []string {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.now
		},
	}
	return d
}

// run shows until the test ends, or until the function it returns is called.
func (d *desk) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, d.options) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run = %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("Run waits for a terminal")
		}
	})
	t.Cleanup(stop)
	return stop
}

func (d *desk) create(t *testing.T, all ...resource.Resource) {
	t.Helper()
	for _, r := range all {
		if err := d.state.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

// sick are services that say why they are not healthy.
type sick struct{}

func (sick) Get(id string) (service.Status, error) {
	switch id {
	case "etcd":
		return service.Status{ID: id, Health: service.HealthStatus{Message: "dial tcp 127.0.0.1:2379: connection refused"}, Events: []service.Event{{Message: "started"}}}, nil
	case "kubelet":
		return service.Status{ID: id, Health: service.HealthStatus{Unknown: true}, Events: []service.Event{{Message: "pulling the image"}}}, nil
	}
	return service.Status{}, errors.New("no such service")
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// blank are the resources of a machine in maintenance mode, with secrets beside
// them that nothing shows.
func blank() []resource.Resource {
	machine := runtime.NewMachineStatus("machine")
	machine.TypedSpec().Stage = runtime.StageMaintenance
	hostname := network.NewHostnameStatus(network.HostnameID)
	hostname.TypedSpec().Hostname = "box"
	address := network.NewNodeAddress(network.NodeAddressDefaultID)
	address.TypedSpec().Addresses = []netip.Prefix{netip.MustParsePrefix("10.5.0.9/24")}
	routed := network.NewNodeAddress(network.NodeAddressRoutedID)
	routed.TypedSpec().Addresses = []netip.Prefix{netip.MustParsePrefix("10.5.0.9/24"), netip.MustParsePrefix("fd00::9/64")}
	certificate := runtime.NewCertificateStatus("apid-server")
	certificate.TypedSpec().KeyFingerprint = print
	keys := secrets.NewApiCertificate("api")
	keys.TypedSpec().Server = &pem.CertificateAndKey{Crt: []byte("SECRET-crt"), Key: []byte("SECRET-key")}
	root := secrets.NewOSRootSecrets("os")
	root.TypedSpec().Token = "SECRET-token"
	document := config.NewMachineConfig(config.ActiveID)
	document.TypedSpec().Document = []byte("machine: {token: SECRET-document}")
	return []resource.Resource{
		machine, hostname, address, routed, certificate, keys, root, document,
		runtime.NewMaintenanceServiceRequest(runtime.MaintenanceServiceRequestID),
	}
}

// TestShown: both consoles show a machine's way from maintenance mode to a node
// that is not well, in place on the one and line by line on the other.
func TestShown(t *testing.T) {
	d := newDesk(t)
	d.screen.read()
	d.serial.read()
	d.create(t, blank()...)
	stop := d.run(t)
	shows := func(words ...string) {
		t.Helper()
		for _, w := range words {
			eventually(t, fmt.Sprintf("%q on the screen", w), func() bool {
				return strings.Contains(strings.Join(glass(t, d.screen.String(), 80, 25), "\n"), w)
			})
			eventually(t, fmt.Sprintf("%q on the serial port", w), func() bool { return strings.Contains(d.serial.String(), w) })
		}
	}
	shows("box", "10.5.0.9, fd00::9", print, "talosctl apply-config --insecure -n 10.5.0.9")

	machine := runtime.NewMachineStatus("machine").Metadata()
	if _, err := safe.StateUpdateWithConflicts(t.Context(), d.state, machine, func(r *runtime.MachineStatus) error {
		r.TypedSpec().Stage = runtime.StageBooting
		r.TypedSpec().Status.UnmetConditions = []runtime.UnmetCondition{
			{Name: "services", Reason: "etcd is not healthy"}, {Name: "services", Reason: "kubelet is not running"}, {Name: "services", Reason: "cri is not running"},
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.state.Destroy(t.Context(), runtime.NewMaintenanceServiceRequest(runtime.MaintenanceServiceRequestID).Metadata()); err != nil {
		t.Fatal(err)
	}
	kind, node, diagnostic := config.NewMachineType(), k8s.NewNodeStatus("box"), runtime.NewDiagnostic("disk")
	kind.TypedSpec().Type = cluster.TypeControlPlane
	node.TypedSpec().Nodename = "box"
	diagnostic.TypedSpec().Message, diagnostic.TypedSpec().Details = "EPHEMERAL is full", []string{"/dev/vda6"}
	d.create(t, kind, node, diagnostic)
	d.mu.Lock()
	d.now = []string{"pulling images"}
	d.mu.Unlock()
	if _, err := fmt.Fprintln(d.logs.Writer("etcd"), `time=2026-03-04T12:00:00Z level=WARN msg="slow disk" took=2s`); err != nil {
		t.Fatal(err)
	}
	shows("node box is not Ready", "disk: EPHEMERAL is full: /dev/vda6", "pulling images",
		"etcd is not healthy: dial tcp 127.0.0.1:2379", "kubelet is not running: pulling the image", "services: cri is not running")
	eventually(t, "the warning on the screen", func() bool {
		return strings.Contains(strings.Join(glass(t, d.screen.String(), 80, 25), "\n"), `etcd: "slow disk" took=2s`)
	})
	want := Screen(newState(t, d), 80, 25-messages(25))
	eventually(t, "the whole screen", func() bool { return cmp.Equal(glass(t, d.screen.String(), 80, 25)[:len(want)], want) })
	stop()
	for _, p := range []*pty{d.screen, d.serial} {
		if strings.Contains(p.String(), "SECRET") {
			t.Errorf("a secret is shown:\n%q", p.String())
		}
	}
	if strings.Contains(d.serial.String(), "\x1b") || strings.Count(d.serial.String(), "host box") != 1 {
		t.Errorf("the serial port is told more than what changes:\n%s", d.serial.String())
	}
	eventually(t, "the screen is given back", func() bool { return strings.HasSuffix(d.screen.String(), "\x1b[r\x1b[25;1H\x1b[?25h") })
}

// newState is what a fresh gatherer makes of the desk's store.
func newState(t *testing.T, d *desk) State {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := newGatherer(d.options)
	done := make(chan struct{})
	go func() { defer close(done); g.follow(ctx) }()
	eventually(t, "a whole state", func() bool {
		s := g.state()
		return s.Node != nil && len(s.Wrong) == 4 && len(s.Recent) == 1 && len(s.Addresses) == 2 && s.Hostname != ""
	})
	s := g.state()
	cancel()
	<-done
	return s
}

// TestTiny: whatever size a terminal says it has, nothing goes wrong.
func TestTiny(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {80, 2}, {80, 3}, {1, 4}, {3, 5}} {
		p := newPty(t, size[0], size[1])
		p.read()
		term, err := openTerminal(p.path, true)
		if err != nil {
			t.Fatal(err)
		}
		s := State{Version: "v1", Hostname: strings.Repeat("long ", 100), Wrong: []Problem{{"what", strings.Repeat("why", 200)}}}
		if err := (&painter{terminal: term}).paint(s); err != nil {
			t.Errorf("paint on %v = %v", size, err)
		}
		term.close()
	}
}

// TestNobodyReads: a terminal that takes nothing more holds up neither the other
// nor the end.
func TestNobodyReads(t *testing.T) {
	d := newDesk(t)
	d.serial.read() // the screen is never read
	d.create(t, blank()...)
	stop := d.run(t)
	for i := range 400 { // each changes a line; a terminal's buffer has 64 KiB at most
		d.mu.Lock()
		d.now = []string{fmt.Sprintf("step %d %s", i, strings.Repeat("x", 200))}
		d.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	fill(t, d.screen)
	d.mu.Lock()
	d.now = []string{"the last step"}
	d.mu.Unlock()
	eventually(t, "the last step on the other console", func() bool { return strings.Contains(d.serial.String(), "the last step") })
	stop()
}

// fill writes to the console until it takes no more.
func fill(t *testing.T, p *pty) {
	t.Helper()
	fd, err := unix.Open(p.path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		if _, err := unix.Write(fd, make([]byte, 4096)); errors.Is(err, unix.EAGAIN) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeys: what is typed is neither read nor shown, and Ctrl-S stops nothing.
func TestKeys(t *testing.T) {
	d := newDesk(t)
	d.screen.read()
	d.create(t, blank()...)
	d.run(t)
	eventually(t, "the host's name", func() bool { return strings.Contains(d.screen.String(), "box") })
	if _, err := d.screen.master.WriteString("root\r\x13\x03\x1c"); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	d.now = []string{"goes on"}
	d.mu.Unlock()
	eventually(t, "what goes on", func() bool { return strings.Contains(d.screen.String(), "goes on") })
	if strings.Contains(d.screen.String(), "root") {
		t.Errorf("what is typed is shown:\n%q", d.screen.String())
	}
}

func TestRecent(t *testing.T) {
	var r recent
	for _, i := range []int{3, 1, 2, 30} {
		r.add(Line{Time: noon.Add(time.Duration(i) * time.Second), Text: strconv.Itoa(i)})
	}
	for i := range kept - 1 {
		r.add(Line{Time: noon.Add(time.Duration(10+i) * time.Second), Text: strconv.Itoa(10 + i)})
	}
	got := r.lines()
	if len(got) != kept || got[0].Text != "10" || got[kept-1].Text != "30" {
		t.Errorf("lines = %v, want the last %d by time", got, kept)
	}
	for line, want := range map[string]string{
		`time=2026-03-04T12:00:00.1Z level=WARN msg="slow disk" took=2s`: `"slow disk" took=2s`,
		`W0304 12:00:00.000000    1234 file.go:7] low on space`:          "file.go:7] low on space",
		`{"level":"warn","msg":"x"}`:                                     `{"level":"warn","msg":"x"}`,
	} {
		if got := text(line); got != want {
			t.Errorf("text(%q) = %q, want %q", line, got, want)
		}
	}
}
