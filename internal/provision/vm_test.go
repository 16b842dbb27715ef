package provision

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"talos/api/machine"
	"talos/client"
	"talos/internal/pki"
	"talos/internal/provision/qemu"
)

// vms writes the state of a cluster of virtual machines that start from a kernel.
func vms(t *testing.T, v VMOptions) *Cluster {
	t.Helper()
	v.complete()
	c := example(t, Options{Name: "demo", ControlPlanes: 1, Workers: 1, CPUs: 2, Memory: 2 << 30})
	c.Provisioner, c.VM = VirtualMachines, &VM{VMOptions: v, Accelerator: qemu.Emulated, Cmdline: "talos.platform=metal quiet talos.root=abcd:12"}
	virtual{}.outfit(c, c.Nodes)
	if err := c.generate(Options{}); err != nil {
		t.Fatal(err)
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCompleteVM(t *testing.T) {
	o := Options{Provisioner: VirtualMachines}
	if err := (virtual{}).complete(&o); err != nil {
		t.Fatal(err)
	}
	want := Options{
		Provisioner: VirtualMachines, CPUs: 2, WorkerCPUs: 2, Memory: 2 << 30, WorkerMemory: 1 << 30, Timeout: VMTimeout,
		VM: VMOptions{Boot: BootISO, Delivery: DeliverApply, Disk: 10 << 30, DiskDriver: "virtio", ExtraDisksSize: 10 << 30},
	}
	if diff := cmp.Diff(want, o, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("complete (-want +got):\n%s", diff)
	}
	for boot, delivery := range map[string]string{BootDisk: DeliverApply, BootKernel: DeliverHTTP} {
		o := Options{VM: VMOptions{Boot: boot}}
		if err := (virtual{}).complete(&o); err != nil || o.VM.Delivery != delivery {
			t.Errorf("%s: delivery = %q, %v; want %s", boot, o.VM.Delivery, err, delivery)
		}
	}
	o = Options{Memory: 3 << 30}
	if err := (virtual{}).complete(&o); err != nil || o.WorkerMemory != 3<<30 {
		t.Errorf("workers' memory = %d, %v; want the nodes'", o.WorkerMemory, err)
	}
}

func TestRefusedVM(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"boot from":                  func(o *Options) { o.VM.Boot = "tape" },
		"deliver the configuration":  func(o *Options) { o.VM.Delivery = "mail" },
		"is sealed":                  func(o *Options) { o.VM.KernelArgs = "quiet" },
		"at least 3072 MiB":          func(o *Options) { o.VM.Disk = 1 << 30 },
		"0 to 16":                    func(o *Options) { o.VM.ExtraDisks = 17 },
		"disk driver":                func(o *Options) { o.VM.DiskDriver = "ide" },
		"a whole number":             func(o *Options) { o.CPUs = 0.5 },
		"want it with --boot kernel": func(o *Options) { o.VM.Boot, o.VM.Delivery = BootDisk, DeliverHTTP },
	} {
		o := Options{Provisioner: VirtualMachines}
		change(&o)
		if err := (virtual{}).complete(&o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("complete = %v, want %q", err, want)
		}
	}
	if err := (containers{}).complete(&Options{VM: VMOptions{TPM: true}}); err == nil {
		t.Error("a container with a TPM: want an error")
	}
}

// TestMatchesVM: a cluster that is there is what is asked for, or is not.
func TestMatchesVM(t *testing.T) {
	vms(t, VMOptions{Clock: time.Unix(0, 0)})
	c, err := Load("demo")
	if err != nil {
		t.Fatal(err)
	}
	same := Options{Provisioner: VirtualMachines, ControlPlanes: 1, Workers: 1, KubernetesVersion: c.KubernetesVersion, VM: VMOptions{Clock: time.Unix(0, 0).UTC()}}
	if err := (virtual{}).complete(&same); err != nil {
		t.Fatal(err)
	}
	if err := c.matches(same); err != nil {
		t.Errorf("matches what it was made from = %v", err)
	}
	for name, change := range map[string]func(*Options){
		"containers": func(o *Options) { o.Provisioner, o.VM = Containers, VMOptions{} },
		"disks":      func(o *Options) { o.VM.ExtraDisks = 1 },
		"clock":      func(o *Options) { o.VM.Clock = time.Time{} },
	} {
		o := same
		change(&o)
		if err := c.matches(o); !errors.Is(err, ErrExists) {
			t.Errorf("%s: matches = %v, want ErrExists", name, err)
		}
	}
}

// TestRunnerVM: what follows from a cluster's description is all there, also
// after it was read again.
func TestRunnerVM(t *testing.T) {
	vms(t, VMOptions{Boot: BootKernel, ExtraDisks: 1, KernelArgs: "more=1", TPM: true})
	c, err := Load("demo")
	if err != nil {
		t.Fatal(err)
	}
	n := c.Nodes[0]
	m := c.runner(n).(virtualMachine)
	dir := c.dirs.node(n.Name)
	want := qemu.VM{
		Name: n.Name, UUID: n.UUID, Serial: n.Name, Dir: dir, Log: c.LogFile(n.Name), CPUs: 2, Memory: 2 << 30, Accel: qemu.Emulated, TPM: true,
		Disks: []qemu.Disk{
			{Path: filepath.Join(dir, "disk0.raw"), Size: 10 << 30, Driver: "virtio"}, {Path: filepath.Join(dir, "disk1.raw"), Size: 10 << 30, Driver: "virtio"},
		},
		Links: []qemu.Link{{MAC: n.MAC, Tap: c.port(n.Name)}},
		Kernel: &qemu.Kernel{
			Image: c.dirs.kernel(), Initrd: c.dirs.initramfs(),
			Cmdline: "talos.platform=metal quiet talos.root=abcd:12 talos.config=http://10.5.0.1:5001/" + n.UUID + "/config.yaml more=1",
		},
	}
	if diff := cmp.Diff(want, m.VM); diff != "" {
		t.Errorf("virtual machine (-want +got):\n%s", diff)
	}
	c.VM.Delivery = DeliverNoCloud
	if got, want := c.cmdline(n), "quiet talos.root=abcd:12 talos.platform=nocloud more=1"; got != want {
		t.Errorf("command line for a volume = %q, want %q", got, want)
	}
	if c.Nodes[0].UUID == c.Nodes[1].UUID {
		t.Error("two nodes are the same machine")
	}
	data, err := os.ReadFile(c.dirs.configFile(n.Name))
	if err != nil || !strings.Contains(string(data), "disk: /dev/vda") {
		t.Errorf("configuration says nothing of the disk to install on: %v", err)
	}
}

// TestConfigurationsAreTheirOwn: a node gets its configuration, and nobody another's.
func TestConfigurationsAreTheirOwn(t *testing.T) {
	c := vms(t, VMOptions{Boot: BootKernel})
	handler := c.configurations(slog.New(slog.DiscardHandler))
	first, second := c.Nodes[0], c.Nodes[1]
	for name, tc := range map[string]struct {
		from, path string
		want       int
	}{
		"its own":       {first.Address.String(), configPath(first), http.StatusOK},
		"another's":     {second.Address.String(), configPath(first), http.StatusForbidden},
		"the host":      {c.Gateway.String(), configPath(first), http.StatusForbidden},
		"no such node":  {first.Address.String(), "/6ba7b810-9dad-41d1-80b4-00c04fd430c8/config.yaml", http.StatusNotFound},
		"of the folder": {first.Address.String(), "/../secrets.yaml", http.StatusTemporaryRedirect},
	} {
		r := httptest.NewRequest(http.MethodGet, tc.path, nil)
		r.RemoteAddr = tc.from + ":1234"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%s: status %d, want %d", name, w.Code, tc.want)
		}
		if want, _ := os.ReadFile(c.dirs.configFile(first.Name)); (w.Body.String() == string(want)) != (tc.want == http.StatusOK) {
			t.Errorf("%s: body of %d bytes", name, w.Body.Len())
		}
	}
}

// TestConsoleFingerprints: what a console showed since the configuration was
// applied last, also where it was started anew since.
func TestConsoleFingerprints(t *testing.T) {
	print := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	path := filepath.Join(t.TempDir(), "log")
	got, upTo, err := consoleFingerprints(path, 5)
	if got != nil || upTo != 0 || err != nil {
		t.Errorf("no console: %v, %d, %v", got, upTo, err)
	}
	text := `level=INFO msg="maintenance mode" fingerprint="` + print("a") + "\"\r\nIt is " + print("b") + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[int64][]string{
		0: {print("a"), print("b")}, int64(strings.Index(text, "It is")): {print("b")}, int64(len(text)): nil, 1 << 40: {print("a"), print("b")},
	} {
		got, upTo, err := consoleFingerprints(path, from)
		if err != nil || !slices.Equal(got, want) || upTo != int64(len(text)) {
			t.Errorf("from %d: %v, %d, %v; want %v", from, got, upTo, err, want)
		}
	}
}

func FuzzFingerprints(f *testing.F) {
	f.Add([]byte("\x1b[0m AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= "))
	f.Fuzz(func(t *testing.T, console []byte) {
		for _, p := range fingerprints(console) {
			if sum, err := base64.StdEncoding.DecodeString(p); err != nil || len(sum) != sha256.Size {
				t.Errorf("fingerprint %q: %d bytes, %v", p, len(sum), err)
			}
		}
	})
}

// TestApplyFirst: the configuration goes to the key that the console shows, and
// to no other that answers at the node's address.
func TestApplyFirst(t *testing.T) {
	c := vms(t, VMOptions{})
	made, err := pki.NewMaintenance(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.TLS(made)
	if err != nil {
		t.Fatal(err)
	}
	n := c.Nodes[0]
	n.Address = netip.MustParseAddr("127.64.50.1") // the port is fixed: an address of the loopback that is ours
	l, err := net.Listen("tcp", n.apiAddress())
	if err != nil {
		t.Fatal(err)
	}
	node := &blank{}
	srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	machine.RegisterMachineServiceServer(srv, node)
	go srv.Serve(l)
	defer srv.Stop()
	crt, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	other := base64.StdEncoding.EncodeToString(make([]byte, sha256.Size))
	if err := c.applyFirst(t.Context(), n, []string{other}); client.KindOf(err) != client.UntrustedServer {
		t.Errorf("a key that the console does not show: %v, want %v", err, client.UntrustedServer)
	}
	if node.got != nil {
		t.Error("a stranger got the configuration")
	}
	if err := c.applyFirst(t.Context(), n, []string{other, pki.KeyFingerprint(crt).String()}); err != nil {
		t.Errorf("the key that the console shows: %v", err)
	}
	if node.mode != machine.ApplyConfigurationRequest_AUTO {
		t.Errorf("mode = %v, want what the node finds right", node.mode)
	}
	if want, err := os.ReadFile(c.dirs.configFile(n.Name)); err != nil || string(node.got) != string(want) {
		t.Errorf("it got %d bytes, want the %d of its configuration, %v", len(node.got), len(want), err)
	}
}

// blank is a node in maintenance mode.
type blank struct {
	machine.UnimplementedMachineServiceServer
	got  []byte
	mode machine.ApplyConfigurationRequest_Mode
}

func (b *blank) ApplyConfiguration(_ context.Context, r *machine.ApplyConfigurationRequest) (*machine.ApplyConfigurationResponse, error) {
	b.got, b.mode = r.GetData(), r.GetMode()
	return &machine.ApplyConfigurationResponse{}, nil
}
