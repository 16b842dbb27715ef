package maintenance

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/client"
	"talos/client/talosconfig"
	"talos/config"
	runtimeres "talos/internal/resources/runtime"
)

// insecurely is `talosctl -i`.
func (b *box) insecurely(t *testing.T, fingerprints ...string) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), client.Options{Insecure: true, Nodes: []string{b.address}, Fingerprints: fingerprints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// owner is whoever made the configurations.
func (b *box) owner(t *testing.T, made *config.Bundle) *client.Client {
	t.Helper()
	cfg := &talosconfig.Config{Context: "test", Contexts: map[string]*talosconfig.Context{"test": {
		Endpoints: []string{b.address}, CA: talosconfig.Encode(made.Client.CA), Crt: talosconfig.Encode(made.Client.Crt), Key: talosconfig.Encode(made.Client.Key),
	}}}
	c, err := client.New(t.Context(), client.Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func version(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := c.Machine.Version(ctx, &emptypb.Empty{})
	return err
}

func document(t *testing.T, c *config.Config) []byte {
	t.Helper()
	text, err := c.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestLife is a machine's from blank to blank.
func TestLife(t *testing.T) {
	made, b := bundle(t), newBox(t)
	b.on(t)
	b.stage(t, runtimeres.StageMaintenance)
	print := b.fingerprint(t)
	guest := b.insecurely(t, print)
	looksAround(t, guest)
	if err := version(t.Context(), b.owner(t, made)); !errors.Is(err, client.Unconfigured) {
		t.Errorf("the owner, before the machine has a configuration = %v, want %q", err, client.Unconfigured)
	}
	applies(t, guest, document(t, made.ControlPlane))
	configured(t, b, made, guest)

	b.off()
	never, address := make(chan error, 1), b.address
	go func() { never <- strangersGetIn(t.Context(), address, made) }()
	b.on(t)
	if err := <-never; err != nil {
		t.Errorf("while a configured machine boots: %v", err)
	}
	b.off()
	b.wipe(t)
	b.on(t)
	b.stage(t, runtimeres.StageMaintenance)
	if again := b.fingerprint(t); again == print {
		t.Error("after a reset the machine has the key from before")
	}
	if err := version(t.Context(), b.insecurely(t, print)); !errors.Is(err, client.UntrustedServer) {
		t.Errorf("with the fingerprint from before = %v, want %q", err, client.UntrustedServer)
	}
	if err := version(t.Context(), b.insecurely(t, b.fingerprint(t))); err != nil {
		t.Errorf("with the new fingerprint = %v", err)
	}
}

// looksAround sees what a stranger may, and does not see the rest.
func looksAround(t *testing.T, c *client.Client) {
	t.Helper()
	if err := version(t.Context(), c); err != nil {
		t.Errorf("Version = %v", err)
	}
	for name, call := range map[string]func() error{
		"Memory":      func() error { _, err := c.Machine.Memory(t.Context(), &emptypb.Empty{}); return err },
		"ServiceList": func() error { _, err := c.Machine.ServiceList(t.Context(), &emptypb.Empty{}); return err },
		"Disks":       func() error { _, err := c.Storage.Disks(t.Context(), &emptypb.Empty{}); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s = %v", name, err)
		}
	}
	stream, err := c.Machine.Logs(t.Context(), &machine.LogsRequest{Namespace: "system", Id: "machined", TailLines: -1})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := c.Copy(&text, stream); err != nil || !strings.Contains(text.String(), "machined starts") {
		t.Errorf("the log of machined = %q, %v", text.String(), err)
	}
	for name, r := range map[string]*machine.LogsRequest{
		"an earlier boot's log": {Namespace: "system", Id: "machined", Boot: -1}, "a pod's log": {Namespace: "k8s.io", Id: "kube-system/x:y"},
	} {
		stream, err := c.Machine.Logs(t.Context(), r)
		if err == nil {
			_, err = stream.Recv()
		}
		if !errors.Is(err, client.Denied) {
			t.Errorf("%s = %v, want %q", name, err, client.Denied)
		}
	}
	if n, err := list(t, c, "network", "LinkStatuses.net.talos.dev"); err != nil || n != 1 {
		t.Errorf("links = %d, %v, want one", n, err)
	}
	if _, err := list(t, c, "secrets", "ApiCertificates.secrets.talos.dev"); !errors.Is(err, client.Denied) {
		t.Errorf("certificates with their keys = %v, want %q", err, client.Denied)
	}
	if _, err := c.Machine.Reboot(t.Context(), &machine.RebootRequest{}); !errors.Is(err, client.Denied) || !strings.Contains(err.Error(), "not offered in maintenance mode") {
		t.Errorf("Reboot = %v, want %q and the reason", err, client.Denied)
	}
}

// list counts resources.
func list(t *testing.T, c *client.Client, namespace, kind string) (int, error) {
	t.Helper()
	stream, err := c.Resources.List(t.Context(), &cosi.ListRequest{Namespace: namespace, Type: kind, Options: &cosi.ListOptions{}})
	if err != nil {
		return 0, err
	}
	for n := 0; ; n++ {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// applies gives the machine its first configuration, after what leads nowhere.
func applies(t *testing.T, c *client.Client, text []byte) {
	t.Helper()
	apply := func(r *machine.ApplyConfigurationRequest) (*machine.ApplyConfiguration, error) {
		r.Mode = machine.ApplyConfigurationRequest_AUTO
		reply, err := c.Machine.ApplyConfiguration(t.Context(), r)
		if err != nil {
			return nil, err
		}
		return reply.GetMessages()[0], nil
	}
	bad := strings.Replace(string(text), "machine:\n", "machine:\n    nodeLables: {}\n", 1)
	if _, err := apply(&machine.ApplyConfigurationRequest{Data: []byte(bad)}); !errors.Is(err, client.Invalid) || !strings.Contains(err.Error(), "nodeLables") {
		t.Errorf("a wrong configuration = %v, want %q and where", err, client.Invalid)
	}
	if m, err := apply(&machine.ApplyConfigurationRequest{Data: text, DryRun: true}); err != nil || m.GetNumber() != 0 || m.GetDiff() == "" {
		t.Errorf("a dry run = %v, %v", m, err)
	}
	if err := version(t.Context(), c); err != nil {
		t.Errorf("Version after what changed nothing = %v", err)
	}
	if m, err := apply(&machine.ApplyConfigurationRequest{Data: text}); err != nil || m.GetNumber() != 1 {
		t.Fatalf("the first configuration = %v, %v", m, err)
	}
}

// configured checks who gets in now; old is a stranger's connection from before.
func configured(t *testing.T, b *box, made *config.Bundle, old *client.Client) {
	t.Helper()
	owner := b.owner(t, made)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := version(t.Context(), owner)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the owner = %v", err)
		}
	}
	for name, c := range map[string]*client.Client{"from before": old, "anew": b.insecurely(t)} {
		err := version(t.Context(), c)
		// One who asked between two certificates hears so until it connects again.
		for deadline := time.Now().Add(time.Minute); errors.Is(err, client.Unreachable) && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			err = version(t.Context(), c)
		}
		if !errors.Is(err, client.Configured) {
			t.Errorf("a stranger %s = %v, want %q", name, err, client.Configured)
		}
	}
	b.stage(t, runtimeres.StageBooting) // most of its services are not there
	if n, err := list(t, owner, "secrets", "ApiCertificates.secrets.talos.dev"); err != nil || n != 1 {
		t.Errorf("the owner sees %d certificates, %v, want one", n, err)
	}
}

// strangersGetIn tries to, until the owner does.
func strangersGetIn(ctx context.Context, address string, made *config.Bundle) error {
	dial := func(o client.Options) error {
		c, err := client.New(ctx, o)
		if err != nil {
			return err
		}
		defer c.Close()
		return version(ctx, c)
	}
	owner := client.Options{Config: &talosconfig.Config{Context: "test", Contexts: map[string]*talosconfig.Context{"test": {
		Endpoints: []string{address}, CA: talosconfig.Encode(made.Client.CA), Crt: talosconfig.Encode(made.Client.Crt), Key: talosconfig.Encode(made.Client.Key),
	}}}}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if dial(client.Options{Insecure: true, Nodes: []string{address}}) == nil {
			return errors.New("a stranger got in")
		}
		if dial(owner) == nil {
			return nil
		}
	}
	return errors.New("the owner does not get in")
}

// TestWorker: one that nobody gives a certificate answers who configured it, and
// from then on nobody who has none.
func TestWorker(t *testing.T) {
	made, b := bundle(t), newBox(t)
	b.on(t)
	b.stage(t, runtimeres.StageMaintenance)
	guest := b.insecurely(t, b.fingerprint(t))
	applies(t, guest, document(t, made.Worker))
	b.stage(t, runtimeres.StageBooting)
	for deadline := time.Now().Add(time.Minute); version(t.Context(), b.insecurely(t)) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a stranger still gets in")
		}
	}
	for name, c := range map[string]*client.Client{"a stranger from before": guest, "a stranger anew": b.insecurely(t), "the owner, whom the worker can't prove to be itself": b.owner(t, made)} {
		if err := version(t.Context(), c); err == nil {
			t.Errorf("%s got in", name)
		}
	}
}
