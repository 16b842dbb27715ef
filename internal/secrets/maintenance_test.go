package secrets

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/pki"
	configres "talos/internal/resources/config"
	runtimeres "talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
)

// text is a log that tests read.
type text struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.buf.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.buf.String()
}

// ask is what the keeper of the configuration does on a blank machine.
func (n *testNode) ask(t *testing.T) {
	t.Helper()
	n.create(t, runtimeres.NewMaintenanceServiceRequest(runtimeres.MaintenanceServiceRequestID))
}

func (n *testNode) create(t *testing.T, res resource.Resource) {
	t.Helper()
	if err := n.Create(t.Context(), res); err != nil {
		t.Fatal(err)
	}
	settle()
}

// settle waits until the controllers have done what there is to do.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// certificate is what apid has by now; nil for nothing.
func (n *testNode) certificate(t *testing.T) *secrets.ApiCertificateSpec {
	t.Helper()
	res, err := safe.StateGetByID[*secrets.ApiCertificate](t.Context(), n.State, APIID)
	if state.IsNotFoundError(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return res.TypedSpec()
}

// maintenance is the fingerprint of what a blank machine serves with.
func (n *testNode) maintenance(t *testing.T) pki.Fingerprint {
	t.Helper()
	spec := n.certificate(t)
	if spec == nil {
		t.Fatal("apid has no certificate")
	}
	c, err := pki.ParseCertificate(spec.Server.Crt)
	if err != nil {
		t.Fatal(err)
	}
	if !spec.SkipVerifyingClientCert || spec.Client != nil || len(spec.AcceptedCAs) > 0 || !pki.Maintenance(c) {
		t.Errorf("in maintenance mode apid has %+v", spec)
	}
	return pki.KeyFingerprint(c)
}

// TestMaintenance: the fingerprint is where people look for it, the key is made
// at every boot and gone with the first configuration.
func TestMaintenance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &text{}
		n := boot(t, log)
		settle()
		if spec := n.certificate(t); spec != nil {
			t.Errorf("before anybody asks for maintenance mode apid has %+v", spec)
		}
		n.ask(t)
		print := n.maintenance(t)
		shown := await(t, n, runtimeres.NewCertificateStatus("apid-server")).TypedSpec()
		if shown.KeyFingerprint != print.String() {
			t.Errorf("keyFingerprint = %q, want %q", shown.KeyFingerprint, print)
		}
		if !strings.Contains(log.String(), print.String()) || strings.Contains(log.String(), "PRIVATE KEY") {
			t.Errorf("the log has no fingerprint %s, or the key:\n%s", print, log)
		}
		time.Sleep(48 * time.Hour)
		if again := n.maintenance(t); again != print {
			t.Errorf("after two days the fingerprint is %s, want %s as before", again, print)
		}
		other := boot(t, log)
		other.ask(t)
		if again := other.maintenance(t); again == print {
			t.Error("another boot serves with the same key")
		}
		n.configure(t) // with a control plane node's
		settle()
		before, after := print, n.certificate(t)
		if after == nil || after.SkipVerifyingClientCert || after.Client == nil || len(after.AcceptedCAs) == 0 {
			t.Fatalf("after the first configuration apid has %+v", after)
		}
		if c, err := pki.ParseCertificate(after.Server.Crt); err != nil || pki.KeyFingerprint(c) == before {
			t.Errorf("after the first configuration apid serves with the key from before (%v)", err)
		}
	})
}

// TestNoWayBack: once there was a configuration, nothing brings the mode back.
func TestNoWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := boot(t, &text{})
		n.configure(t)
		settle()
		if err := n.Destroy(t.Context(), configres.NewMachineConfig(configres.ActiveID).Metadata()); err != nil {
			t.Fatal(err)
		}
		n.ask(t)
		if spec := n.certificate(t); spec != nil {
			t.Errorf("a machine that had a configuration serves strangers: %+v", spec)
		}
	})
}

// TestWorkerLeavesMaintenance: a worker that nobody gives a certificate serves
// strangers no longer all the same.
func TestWorkerLeavesMaintenance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := boot(t, &text{})
		source.configure(t)
		log := &text{}
		n := boot(t, log)
		n.ask(t)
		n.maintenance(t)
		mc := configres.NewMachineConfig(configres.ActiveID)
		mc.TypedSpec().Document = source.worker
		n.create(t, mc) // without a host name there is nothing to ask for yet
		if spec := n.certificate(t); spec != nil {
			t.Errorf("a worker without a name serves strangers: %+v", spec)
		}
		n.named(t)
		settle()
		if spec := n.certificate(t); spec != nil {
			t.Errorf("a worker that nobody gives a certificate serves strangers: %+v", spec)
		}
		if !strings.Contains(log.String(), "maintenance mode is over") {
			t.Errorf("the log does not say that the mode is over:\n%s", log)
		}
	})
}
