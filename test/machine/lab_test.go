//go:build e2e

package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"talos/client/talosconfig"
	"talos/config"
	"talos/internal/linux/netns"
	"talos/internal/provision/dhcp"
	"talos/internal/provision/host"
	"talos/internal/provision/ntp"
	"talos/internal/provision/qemu"
)

const out = "../../_out"

// soon is how long a machine may take for anything but an installation. Without
// hardware support every instruction is emulated.
const soon = 10 * time.Minute

// The network of a test.
var (
	prefix  = netip.MustParsePrefix("10.90.0.0/24")
	gateway = netip.MustParseAddr("10.90.0.1")
	address = netip.MustParseAddr("10.90.0.2") // the machine's
)

// lab is what is around a machine.
type lab struct {
	*testing.T
	dir     string
	network host.Network
	log     *slog.Logger
}

// enter runs a test in a network of its own; only there it returns a lab.
func enter(t *testing.T, programs ...string) *lab {
	t.Helper()
	netns.Need(t, append(programs, qemu.Program, "ip")...)
	t.Parallel() // a machine that starts has one processor to do for most of the time
	if !netns.Enter(t) {
		return nil
	}
	netns.Run(t, "ip link set lo up")
	l := &lab{T: t, dir: t.TempDir(), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	l.network = host.Network{Bridge: "lab", Table: "lab", Prefix: prefix, Gateway: gateway}
	if err := l.network.Ensure(); err != nil {
		t.Fatal(err)
	}
	return l
}

// lease starts the server that gives the machine its address, and a name unless
// that is empty.
func (l *lab) lease(hostname string) {
	l.Helper()
	l.serve("dhcp", func(ctx context.Context, ready func()) error {
		return dhcp.Serve(ctx, l.log, l.network.Bridge, dhcp.Config{
			Server: gateway, Router: gateway, Prefix: prefix, NTP: []netip.Addr{gateway}, Duration: time.Hour,
			Leases: []dhcp.Lease{{MAC: host.MAC(address).String(), Address: address, Hostname: hostname}},
		}, ready)
	})
}

// serve runs a server until the test ends, or until stop is called.
func (l *lab) serve(name string, run func(ctx context.Context, ready func()) error) (stop func()) {
	l.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	up, down := make(chan struct{}), make(chan error, 1)
	go func() { down <- run(ctx, func() { close(up) }) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-down; err != nil {
			l.Errorf("%s: %v", name, err)
		}
	})
	l.Cleanup(stop)
	select {
	case <-up:
	case err := <-down:
		down <- nil
		l.Fatalf("%s: %v", name, err)
	}
	return stop
}

// tellTime starts a time server.
func (l *lab) tellTime() {
	l.Helper()
	l.serve("ntp", func(ctx context.Context, ready func()) error {
		conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp", netip.AddrPortFrom(gateway, 123).String())
		if err != nil {
			return err
		}
		ready()
		return ntp.Serve(ctx, l.log, conn)
	})
}

// serveHTTP answers on a port of the gateway; with a certificate by TLS.
func (l *lab) serveHTTP(port uint16, handler http.Handler, server *http.Server) (stop func()) {
	l.Helper()
	return l.serve("http", func(ctx context.Context, ready func()) error {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(gateway, port).String())
		if err != nil {
			return err
		}
		server.Handler, server.ReadHeaderTimeout = handler, 10*time.Second
		server.ErrorLog = slog.NewLogLogger(l.log.Handler(), slog.LevelDebug)
		defer context.AfterFunc(ctx, func() { server.Close() })()
		ready()
		if server.TLSConfig != nil {
			err = server.ServeTLS(listener, "", "")
		} else {
			err = server.Serve(listener)
		}
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	})
}

// image names a file that `make image` has left.
func (l *lab) image(name string) string {
	l.Helper()
	path, err := filepath.Abs(filepath.Join(out, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		l.Fatalf("%v: make it with `make image`", err)
	}
	return path
}

// accel is found out once.
var accel = sync.OnceValues(func() (qemu.Accel, error) {
	firmware, err := qemu.FindFirmware(false)
	if err != nil {
		return "", err
	}
	a, _ := qemu.Choose(context.Background(), firmware)
	return a, nil
})

// box is a machine in the lab.
type box struct {
	qemu.VM
	lab  *lab
	seen int // how much of the console is from before it was turned on
}

// machine describes a machine that is blank but for what more says.
func (l *lab) machine(more func(*qemu.VM)) *box {
	l.Helper()
	a, err := accel()
	if err != nil {
		l.Fatal(err)
	}
	firmware, err := qemu.FindFirmware(false)
	if err != nil {
		l.Fatal(err)
	}
	b := &box{lab: l, VM: qemu.VM{
		Name: "box", UUID: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", Serial: "S-1", Dir: filepath.Join(l.dir, "box"), Log: filepath.Join(l.dir, "console"),
		CPUs: 2, Memory: 3 << 29, Accel: a, Firmware: firmware, Links: []qemu.Link{{MAC: host.MAC(address).String(), Tap: "port"}},
	}}
	more(&b.VM)
	l.Cleanup(func() {
		b.off()
		if l.Failed() {
			l.Logf("console:\n%s", tail(b.console(), 200))
		}
	})
	return b
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// on turns the machine on.
func (b *box) on() {
	b.lab.Helper()
	b.seen += len(b.console())
	if err := b.lab.network.AttachTap("port"); err != nil {
		b.lab.Fatal(err)
	}
	if _, err := b.Start(b.lab.Context()); err != nil {
		b.lab.Fatal(err)
	}
}

// off cuts the power.
func (b *box) off() {
	b.lab.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := b.Kill(ctx); err != nil {
		b.lab.Error(err)
	}
}

// console is what was shown since the machine was turned on, or since forget.
func (b *box) console() string {
	data, err := os.ReadFile(b.Log)
	if err != nil {
		return ""
	}
	return string(data[min(b.seen, len(data)):])
}

// forget has shows look only at what comes from now on.
func (b *box) forget() { b.seen += len(b.console()) }

// shows waits until the console shows texts, each behind the one before.
func (b *box) shows(texts ...string) {
	b.lab.Helper()
	b.lab.eventually(soon, func() error {
		rest := b.console()
		for _, text := range texts {
			_, after, ok := strings.Cut(rest, text)
			if !ok {
				return fmt.Errorf("the console does not show %q", text)
			}
			rest = after
		}
		return nil
	})
}

var fingerprint = regexp.MustCompile(`[A-Za-z0-9+/]{43}=`)

// fingerprint waits until the console shows one, and returns the last.
func (b *box) fingerprint() (last string) {
	b.lab.Helper()
	b.shows("--cert-fingerprint")
	b.lab.eventually(soon, func() error { // which may come a moment after these words
		all := fingerprint.FindAllString(b.console(), -1)
		if len(all) == 0 {
			return errors.New("the console shows no fingerprint")
		}
		last = all[len(all)-1]
		return nil
	})
	return last
}

// eventually asks until there is no error.
func (l *lab) eventually(within time.Duration, ask func() error) {
	l.Helper()
	start := time.Now()
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Since(start) > within {
			l.Fatalf("not within %v: %v", within, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// caller calls the machine's API: as its owner, or as a stranger does.
type caller struct {
	lab  *lab
	args []string
}

// stranger is who has no configuration, and knows what the console shows.
func (b *box) stranger(fingerprint string) caller {
	return caller{b.lab, []string{"--insecure", "--cert-fingerprint", fingerprint, "-n", address.String()}}
}

// try calls talosctl and returns what it prints, on both outputs.
func (c caller) try(args ...string) (string, error) {
	c.lab.Helper()
	ctx, cancel := context.WithTimeout(c.lab.Context(), soon)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.lab.image("bin/talosctl"), slices.Concat(args, c.args)...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return string(text), fmt.Errorf("talosctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(text)))
	}
	return string(text), nil
}

// call is a try that must succeed.
func (c caller) call(args ...string) string {
	c.lab.Helper()
	text, err := c.try(args...)
	if err != nil {
		c.lab.Fatal(err)
	}
	return text
}

// sees waits until a call prints texts.
func (c caller) sees(texts []string, args ...string) string {
	c.lab.Helper()
	var text string
	c.lab.eventually(soon, func() (err error) {
		if text, err = c.try(args...); err != nil {
			return err
		}
		return contains(text, texts...)
	})
	return text
}

// applies hands the machine its configuration. The console may ask for it before
// the API answers.
func (c caller) applies(file string) {
	c.lab.Helper()
	c.sees(nil, "version")
	c.call("apply-config", "-f", file)
}

// bootEntry is what the firmware calls the first entry of its menu that one of
// its variables names: BootOrder, or BootCurrent for the one that was started.
func (c caller) bootEntry(variable string) string {
	c.lab.Helper()
	read := func(name string, least int) []byte {
		c.lab.Helper()
		const attributes = 4 // bytes, before the value
		value := c.sees(nil, "read", "/sys/firmware/efi/efivars/"+name+"-8be4df61-93ca-11d2-aa0d-00e098032b8c")
		if len(value) < attributes+least {
			c.lab.Fatalf("the firmware's variable %s has %d bytes", name, len(value))
		}
		return []byte(value[attributes:])
	}
	number := binary.LittleEndian.Uint16(read(variable, 2))
	// An EFI_LOAD_OPTION: attributes, length of the device path, title in UCS-2.
	title := string(read(fmt.Sprintf("Boot%04X", number), 8)[6:])
	title, _, _ = strings.Cut(title, "\x00\x00")
	return strings.ReplaceAll(title, "\x00", "")
}

func contains(text string, wanted ...string) error {
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			return fmt.Errorf("%q is not in %q", w, text)
		}
	}
	return nil
}

// cluster is whose machine it becomes.
type cluster struct {
	caller  // its owner
	secrets *config.Secrets
}

func (l *lab) cluster() *cluster {
	l.Helper()
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		l.Fatal(err)
	}
	client, err := config.NewClient(secrets, []string{config.ClientRole}, time.Hour, time.Now())
	if err != nil {
		l.Fatal(err)
	}
	file := filepath.Join(l.dir, "talosconfig")
	if err := (&talosconfig.Config{Context: "test", Contexts: map[string]*talosconfig.Context{"test": {
		Endpoints: []string{address.String()}, CA: talosconfig.Encode(client.CA), Crt: talosconfig.Encode(client.Crt), Key: talosconfig.Encode(client.Key),
	}}}).Save(file); err != nil {
		l.Fatal(err)
	}
	return &cluster{caller{l, []string{"--talosconfig", file, "-n", address.String()}}, secrets}
}

// configuration is that of the cluster's one machine, with changes.
func (c *cluster) configuration(changes ...func(*config.Config)) []byte {
	c.lab.Helper()
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://" + address.String() + ":6443", Secrets: c.secrets})
	if err != nil {
		c.lab.Fatal(err)
	}
	for _, change := range changes {
		change(made.ControlPlane)
	}
	text, err := made.ControlPlane.Bytes()
	if err != nil {
		c.lab.Fatal(err)
	}
	return text
}

// file writes a file of the test's.
func (l *lab) file(name string, data []byte) string {
	l.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		l.Fatal(err)
	}
	return path
}

func (l *lab) read(path string) []byte {
	l.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		l.Fatal(err)
	}
	return data
}

// run runs a program of the host, which must succeed.
func (l *lab) run(name string, args ...string) {
	l.Helper()
	if text, err := exec.CommandContext(l.Context(), name, args...).CombinedOutput(); err != nil {
		l.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, text)
	}
}
