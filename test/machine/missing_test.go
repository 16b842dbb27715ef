//go:build e2e

package machine

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"talos/config"
	"talos/internal/pki"
	"talos/internal/provision/host"
	"talos/internal/provision/qemu"
	"talos/internal/provision/registry"
)

// Ports of the gateway.
const (
	plainPort    = 8080
	tlsPort      = 8443
	registryPort = 5000
)

// answers is a server that can be told what to answer.
type answers struct {
	mu     sync.Mutex // guards the fields below
	answer http.HandlerFunc
	asked  string // the path, last
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	answer := a.answer
	a.asked = r.URL.Path
	a.mu.Unlock()
	answer(w, r)
}

func (a *answers) with(answer http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *answers) document(text []byte) {
	a.with(func(w http.ResponseWriter, _ *http.Request) { w.Write(text) })
}

func (a *answers) path() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// TestWhatIsMissing takes a machine from one trouble to the next, each of which
// its console and its API tell in a sentence, and each of which is over when its
// cause is: no network, no server, a clock that is decades behind, a server that it does not
// trust, a configuration that is wrong, a disk that is too small, no disk that
// was meant, no registry.
func TestWhatIsMissing(t *testing.T) {
	l := enter(t)
	if l == nil {
		return
	}
	l.lease("box")
	b := l.machine(func(v *qemu.VM) {
		v.Clock = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC) // the firmware takes none before 1998
		v.Disks = []qemu.Disk{{Path: filepath.Join(l.dir, "small.raw"), Size: 1 << 30, Driver: "scsi", Serial: "small"}}
		v.Kernel = &qemu.Kernel{
			Image: l.image("vmlinuz"), Initrd: l.image("initramfs-full.zst"),
			Cmdline: fmt.Sprintf("%s talos.config=http://%s:%d/${uuid}/${mac}/${serial}/${hostname}", strings.TrimSpace(string(l.read(l.image("cmdline")))), gateway, plainPort),
		}
	})
	b.on()
	b.plug(false)
	b.shows("no carrier")
	b.shows("waiting for configuration")

	b.plug(true)
	b.shows("address " + address.String())
	stranger := b.stranger(b.fingerprint())
	status := func(texts ...string) {
		t.Helper()
		stranger.sees(texts, "get", "acquireconfigstatus")
		stranger.sees(texts, "get", "diagnostics")
		for _, text := range texts {
			b.shows(text)
		}
	}
	status("configuration server http://10.90.0.1:8080/", "connection refused")

	web := new(answers)
	web.with(http.NotFound)
	l.serveHTTP(plainPort, web, new(http.Server))
	status("answered 404 Not Found")
	if got, want := web.path(), fmt.Sprintf("/%s/%s/%s/%s", b.UUID, host.MAC(address), b.Serial, "box"); got != want {
		t.Errorf("the machine asks for %s, want %s", got, want)
	}

	l.serveHTTP(tlsPort, web, &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{l.certificate()}}})
	web.with(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("https://%s:%d/", gateway, tlsPort), http.StatusFound)
	})
	status("the clock is wrong", "the machine's clock says 2001-01-01")
	l.tellTime()
	status("certificate signed by unknown authority")
	stranger.sees([]string{"true"}, "get", "timestatus")

	owner := l.cluster()
	web.document(owner.configuration(func(c *config.Config) { c.Machine.Install = &config.Install{Disk: "/dev/sda"} }))
	status("/dev/sda", "is too small: at least")
	web.document(owner.configuration(func(c *config.Config) {
		c.Machine.Install = &config.Install{DiskSelector: &config.InstallDiskSelector{Match: `disk.serial == "large" && !system_disk`}}
		c.Machine.Registries = l.registries()
	}))
	status("no disk has match", "small")

	b.forget()
	b.insert(qemu.Disk{Path: filepath.Join(l.dir, "large.raw"), Size: disk, Driver: "scsi", Serial: "large"})
	b.shows("install on /dev/sdb", "serial large", "device=/dev/sdb")
	owner.sees([]string{"sdb"}, "get", "systemdisk")
	owner.sees([]string{"configured", "the configuration was found at the start"}, "get", "acquireconfigstatus")

	b.shows("kubelet", fmt.Sprintf("%s:%d", gateway, registryPort), "connection refused")
	owner.sees([]string{"connection refused"}, "service", "kubelet")
	b.forget()
	l.serveHTTP(registryPort, registry.New(l.log, l.image("images")), new(http.Server))
	owner.sees([]string{"Running"}, "service", "kubelet")
}

// plug puts the network cable in, or takes it out.
func (b *box) plug(in bool) {
	b.lab.Helper()
	b.do("set_link", map[string]any{"name": "net0", "up": in})
}

// insert adds a disk to the machine while it runs, beside the first, which must
// be of the driver scsi. It is there after a restart too.
func (b *box) insert(d qemu.Disk) {
	b.lab.Helper()
	id := fmt.Sprintf("disk%d", len(b.Disks))
	b.Disks = append(b.Disks, d)
	if err := b.Prepare(); err != nil {
		b.lab.Fatal(err)
	}
	b.do("blockdev-add", map[string]any{"driver": "raw", "node-name": id, "file": map[string]any{"driver": "file", "filename": d.Path}})
	b.do("device_add", map[string]any{"driver": "scsi-hd", "bus": "disk0-bus.0", "drive": id, "id": "new-" + id, "serial": d.Serial})
}

func (b *box) do(command string, arguments map[string]any) {
	b.lab.Helper()
	if err := b.Command(b.lab.Context(), command, arguments, nil); err != nil {
		b.lab.Fatal(err)
	}
}

// certificate is the gateway's, by an authority that nobody knows.
func (l *lab) certificate() tls.Certificate {
	l.Helper()
	pair, err := pki.NewCA(pki.ECDSAP256, pki.Subject{CommonName: "nobody's"}, time.Now())
	if err != nil {
		l.Fatal(err)
	}
	ca, err := pki.ParseCA(pair.Crt, pair.Key)
	if err != nil {
		l.Fatal(err)
	}
	server, err := ca.Issue(pki.Template{CommonName: "server", IPs: []netip.Addr{gateway}, Server: true, Lifetime: time.Hour}, time.Now())
	if err != nil {
		l.Fatal(err)
	}
	out, err := tls.X509KeyPair(server.Crt, server.Key)
	if err != nil {
		l.Fatal(err)
	}
	return out
}

// registries has all images come from the gateway.
func (l *lab) registries() *config.Registries {
	yes := true
	r := &config.Registries{Mirrors: map[string]config.RegistryMirror{}}
	for _, name := range []string{"registry.k8s.io", "registry.talos.dev", "ghcr.io"} {
		r.Mirrors[name] = config.RegistryMirror{Endpoints: []string{fmt.Sprintf("http://%s:%d", gateway, registryPort)}, SkipFallback: &yes}
	}
	return r
}
