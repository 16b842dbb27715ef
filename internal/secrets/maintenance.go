package secrets

import (
	"context"
	"fmt"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/pki"
	"talos/internal/reconcile"
	"talos/internal/resources/pem"
	"talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
)

// maintenance has apid serve whoever comes while the machine has never had a
// configuration: with a key that is made at every boot and lives in this
// process's memory alone, until the first configuration.
func (w *worker) maintenance(ctx context.Context, r controller.Runtime, now time.Time) error {
	if w.configured { // there is no way back but a reboot without STATE
		return nil
	}
	asked, err := reconcile.Get[*runtime.MaintenanceServiceRequest](ctx, r, runtime.MaintenanceServiceRequestID)
	if err != nil || asked == nil {
		return err
	}
	return safe.WriterModify(ctx, r, secrets.NewApiCertificate(APIID), func(res *secrets.ApiCertificate) error {
		spec := res.TypedSpec()
		if spec.SkipVerifyingClientCert && spec.Server != nil {
			return nil
		}
		pair, err := pki.NewMaintenance(now)
		if err != nil {
			return fmt.Errorf("certificate for maintenance mode: %w", err)
		}
		crt, err := pki.ParseCertificate(pair.Crt)
		if err != nil {
			return err
		}
		*spec = secrets.ApiCertificateSpec{SkipVerifyingClientCert: true, Server: &pem.CertificateAndKey{Crt: pair.Crt, Key: pair.Key}}
		w.log.Info("maintenance mode: the API takes a configuration from whoever reaches it", "fingerprint", pki.KeyFingerprint(crt).String())
		return nil
	})
}

// endMaintenance takes the certificate of maintenance mode away for good, before
// there is another one: from the first configuration on no stranger is served.
func (w *worker) endMaintenance(ctx context.Context, r controller.Runtime) error {
	w.configured = true
	have, err := reconcile.Get[*secrets.ApiCertificate](ctx, r, APIID)
	if err != nil || have == nil || !have.TypedSpec().SkipVerifyingClientCert {
		return err
	}
	if err := r.Destroy(ctx, have.Metadata()); err != nil && !state.IsNotFoundError(err) {
		return err
	}
	w.log.Info("maintenance mode is over: the API wants client certificates")
	return nil
}
