package secrets

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	stdpem "encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/config"
	"talos/internal/join"
	"talos/internal/linux/atomicfile"
	"talos/internal/pki"
	"talos/internal/reconcile"
	"talos/internal/resources/pem"
	"talos/internal/resources/secrets"
)

// Ask has a certificate signed for this node by a control plane node; now is
// the time by which the answer is judged.
type Ask func(ctx context.Context, cfg *config.Config, want join.Want, now time.Time) (join.Granted, error)

const (
	askTimeout = 30 * time.Second
	// askAgain is when a certificate that lacks something is asked for anew.
	askAgain = time.Hour
)

// worker gets a worker's certificate. What it remembers spares requests and
// log lines; without it the node would ask once more than it needs to.
type worker struct {
	ask  Ask
	log  *slog.Logger
	file string // where the certificate is kept; none if empty

	asked    []netip.Addr // what the certificate at hand was asked for
	at       time.Time
	complete bool
	told     string // what could not be had, as last logged

	configured bool // this boot has seen a configuration
}

// step keeps the certificate that is there while it serves, also while no
// control plane node answers.
func (w *worker) step(ctx context.Context, r controller.Runtime, cfg *config.Config, n node, now time.Time) error {
	names := []string{n.hostname}
	if n.domain != "" {
		names = append(names, n.hostname+"."+n.domain)
	}
	if err := writeCertSANs(ctx, r, n, n.addresses, names); err != nil {
		return err
	}
	roots, err := pki.Pool(bundle(accepted(cfg.Machine.CA, cfg.Machine.AcceptedCAs)))
	if err != nil {
		return fmt.Errorf("machine.ca and machine.acceptedCAs: %w", err)
	}
	have, err := reconcile.Get[*secrets.ApiCertificate](ctx, r, APIID)
	if err != nil {
		return err
	}
	if have != nil && have.TypedSpec().Client != nil { // a control plane node's, from before
		for _, res := range []resource.Resource{have, secrets.NewTrustdCertificate(TrustdID)} {
			if err := r.Destroy(ctx, res.Metadata()); err != nil && !state.IsNotFoundError(err) {
				return err
			}
		}
		have = nil
	}
	server := w.kept(n.addresses)
	if have != nil {
		server = have.TypedSpec().Server
	}
	var problem error
	if !w.serves(server, roots, names, n.addresses, now) {
		granted, err := w.request(ctx, cfg, join.Want{Names: names, Addresses: n.addresses}, now)
		if err == nil {
			server = &pem.CertificateAndKey{Crt: granted.Crt, Key: granted.Key}
			w.keep(server)
		}
		problem = err
	}
	if server == nil || problem != nil && !w.usable(server, roots, now) {
		return problem
	}
	if err := safe.WriterModify(ctx, r, secrets.NewApiCertificate(APIID), func(res *secrets.ApiCertificate) error {
		*res.TypedSpec() = secrets.ApiCertificateSpec{AcceptedCAs: accepted(cfg.Machine.CA, cfg.Machine.AcceptedCAs), Server: server}
		return nil
	}); err != nil {
		return err
	}
	return problem
}

func (w *worker) request(ctx context.Context, cfg *config.Config, want join.Want, now time.Time) (join.Granted, error) {
	if w.ask == nil {
		return join.Granted{}, errors.New("ask for a certificate: there is nobody to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	granted, err := w.ask(ctx, cfg, want, now)
	if err != nil {
		return granted, fmt.Errorf("ask for a certificate, as machine.ca's key is on control plane nodes only: %w", err)
	}
	w.asked, w.at, w.complete = slices.Clone(want.Addresses), now, len(granted.LeftOut) == 0
	w.log.Info("certificate received", "names", want.Names, "addresses", granted.Addresses)
	w.tell(cfg, want, granted)
	return granted, nil
}

// tell writes down, once, what the certificate is not for.
func (w *worker) tell(cfg *config.Config, want join.Want, granted join.Granted) {
	for _, addr := range slices.SortedFunc(maps.Keys(granted.LeftOut), netip.Addr.Compare) {
		w.log.Warn("the certificate leaves out an address of this node", "address", addr, "reason", granted.LeftOut[addr])
	}
	ips, names := split(cfg.Machine.CertSANs)
	var out []string
	for _, ip := range ips {
		if !slices.Contains(granted.Addresses, ip) {
			out = append(out, ip.String())
		}
	}
	for _, name := range names {
		if !slices.Contains(want.Names, name) {
			out = append(out, name)
		}
	}
	if text := fmt.Sprint(out); len(out) > 0 && text != w.told {
		w.told = text
		w.log.Warn("the certificate leaves out what a worker can't prove", "machine.certSANs", out)
	}
}

// keep writes the certificate down for the next start; without it the node asks
// then.
func (w *worker) keep(server *pem.CertificateAndKey) {
	if w.file == "" {
		return
	}
	if err := atomicfile.Save(w.file, slices.Concat(server.Crt, server.Key), 0o600); err != nil {
		w.log.Warn("the certificate is not kept for the next start", "err", err)
	}
}

// kept is the certificate of the last start, once, if there is one with its key.
func (w *worker) kept(addresses []netip.Addr) *pem.CertificateAndKey {
	if w.file == "" || w.asked != nil {
		return nil
	}
	text, err := os.ReadFile(w.file)
	if err != nil { // there is none, or none that helps
		return nil
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil
	}
	var server pem.CertificateAndKey
	for rest := text; ; {
		var block *stdpem.Block
		if block, rest = stdpem.Decode(rest); block == nil {
			break
		}
		if part := stdpem.EncodeToMemory(block); block.Type == "CERTIFICATE" {
			server.Crt = append(server.Crt, part...)
		} else {
			server.Key = part
		}
	}
	for _, ip := range pair.Leaf.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			w.asked = append(w.asked, a.Unmap())
		}
	}
	w.complete = len(w.asked) == len(addresses)
	return &server
}

// usable says whether a certificate that should be renewed is better than none.
func (w *worker) usable(have *pem.CertificateAndKey, roots *x509.CertPool, now time.Time) bool {
	return pki.Verify(have.Crt, roots, x509.ExtKeyUsageServerAuth, now) == nil
}

// serves says whether a certificate can be kept.
func (w *worker) serves(have *pem.CertificateAndKey, roots *x509.CertPool, names []string, addresses []netip.Addr, now time.Time) bool {
	if have == nil || !slices.Equal(w.asked, addresses) || !w.complete && now.Sub(w.at) > askAgain {
		return false
	}
	crt, err := pki.ParseCertificate(have.Crt)
	if err != nil {
		return false
	}
	return pki.Verify(have.Crt, roots, x509.ExtKeyUsageServerAuth, now) == nil && now.Before(pki.RenewAt(crt)) &&
		slices.Equal(crt.DNSNames, names)
}
