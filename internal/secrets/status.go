package secrets

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/generic"
	"github.com/cosi-project/runtime/pkg/resource"
	"go.yaml.in/yaml/v3"

	"talos/internal/layout"
	"talos/internal/loop"
	"talos/internal/pki"
	"talos/internal/reconcile"
	pemres "talos/internal/resources/pem"
	"talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
	"talos/internal/resources/v1alpha1"
)

// lookAgain is how often the kubelet's files are looked at: it tells nobody when
// it renews what is in them.
const lookAgain = 15 * time.Second

// statusController shows when what expires.
func statusController(log *slog.Logger, kubeletPKI string) controller.Controller {
	var files reconcile.Task
	ticks := make(chan struct{}, 1)
	return &reconcile.Controller{
		Ticks: ticks, Close: files.Stop,
		ID: "runtime.CertificateStatusController", Log: log,
		In: []controller.Input{
			reconcile.Input[*secrets.ApiCertificate](), reconcile.Input[*secrets.TrustdCertificate](), reconcile.Input[*secrets.OSRootSecrets](),
			reconcile.Input[*secrets.EtcdSecrets](), reconcile.Input[*secrets.EtcdRootSecrets](), reconcile.Input[*secrets.KubernetesDynamicCerts](),
			reconcile.Input[*secrets.KubernetesSecrets](), reconcile.Input[*secrets.KubernetesRootSecrets](), reconcile.Input[*secrets.KubeletSecrets](),
			reconcile.InputID[*v1alpha1.Service]("kubelet"), // it keeps its own in files
		},
		Out: []resource.Kind{reconcile.Kind[*runtime.CertificateStatus]()},
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			files.Ensure(ctx, log, kubeletPKI, func(ctx context.Context) error { return watchKubelet(ctx, kubeletPKI, ticks) })
			all, err := certificates(ctx, r, kubeletPKI)
			if err != nil {
				return err
			}
			for id, crt := range all {
				spec, err := describe(crt)
				if err != nil {
					log.Warn("certificate not shown", "certificate", id, "err", err)
					continue
				}
				if err := reconcile.Put(ctx, r, runtime.NewCertificateStatus(id), spec); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// watchKubelet ticks when the kubelet has other certificates than before.
func watchKubelet(ctx context.Context, dir string, ticks chan<- struct{}) error {
	last := map[resource.ID]string{}
	for loop.Sleep(ctx, lookAgain) {
		now := map[resource.ID]string{}
		for id, file := range kubeletFiles {
			// To a file named by its time; none if there is none yet.
			now[id], _ = os.Readlink(filepath.Join(dir, file))
		}
		if !maps.Equal(now, last) {
			select {
			case ticks <- struct{}{}:
			default: // one is on its way
			}
		}
		last = now
	}
	return nil
}

// describe is what is public of a certificate, PEM; a key before or after it is
// passed over.
func describe(text []byte) (runtime.CertificateStatusSpec, error) {
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return runtime.CertificateStatusSpec{}, fmt.Errorf("no certificate in PEM of %d bytes", len(text))
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		crt, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return runtime.CertificateStatusSpec{}, err
		}
		sum := sha256.Sum256(crt.Raw)
		names := crt.DNSNames
		for _, ip := range crt.IPAddresses {
			names = append(names, ip.String())
		}
		return runtime.CertificateStatusSpec{
			Subject: crt.Subject.String(), Issuer: crt.Issuer.String(), Serial: fmt.Sprintf("%x", crt.SerialNumber),
			NotBefore: crt.NotBefore.UTC().Format(time.RFC3339), NotAfter: crt.NotAfter.UTC().Format(time.RFC3339),
			Names: names, Fingerprint: hex.EncodeToString(sum[:]), KeyFingerprint: pki.KeyFingerprint(crt).String(),
		}, nil
	}
}

// certificates are all that this node has, by the id of their status.
func certificates(ctx context.Context, r controller.Reader, kubeletPKI string) (map[resource.ID][]byte, error) {
	out := map[resource.ID][]byte{}
	pair := func(id resource.ID, p *pemres.CertificateAndKey) {
		if p != nil && len(p.Crt) > 0 {
			out[id] = p.Crt
		}
	}
	for _, read := range []func() error{
		func() error {
			return with(ctx, r, APIID, func(res *secrets.ApiCertificate) {
				pair("apid-server", res.TypedSpec().Server)
				pair("apid-client", res.TypedSpec().Client)
			})
		},
		func() error {
			return with(ctx, r, TrustdID, func(res *secrets.TrustdCertificate) { pair("trustd-server", res.TypedSpec().Server) })
		},
		func() error {
			return with(ctx, r, OSRootID, func(res *secrets.OSRootSecrets) { pair("ca-os", res.TypedSpec().IssuingCA) })
		},
		func() error {
			return with(ctx, r, EtcdID, func(res *secrets.EtcdRootSecrets) { pair("ca-etcd", res.TypedSpec().EtcdCA) })
		},
		func() error {
			return with(ctx, r, EtcdID, func(res *secrets.EtcdSecrets) {
				s := res.TypedSpec()
				pair("etcd-server", s.Etcd)
				pair("etcd-peer", s.EtcdPeer)
				pair("etcd-admin", s.EtcdAdmin)
				pair("etcd-kube-apiserver", s.EtcdAPIServer)
			})
		},
		func() error {
			return with(ctx, r, KubeRootID, func(res *secrets.KubernetesRootSecrets) { pair("ca-aggregator", res.TypedSpec().AggregatorCA) })
		},
		func() error {
			return with(ctx, r, KubeletID, func(res *secrets.KubeletSecrets) {
				if cas := res.TypedSpec().AcceptedCAs; len(cas) > 0 {
					out["ca-kubernetes"] = cas[0].Crt
				}
			})
		},
		func() error {
			return with(ctx, r, KubeCertsID, func(res *secrets.KubernetesDynamicCerts) {
				s := res.TypedSpec()
				pair("kube-apiserver", s.APIServer)
				pair("kube-apiserver-kubelet-client", s.APIServerKubeletClient)
				pair("kube-front-proxy", s.FrontProxy)
			})
		},
		func() error {
			return with(ctx, r, KubeconfigID, func(res *secrets.KubernetesSecrets) {
				s := res.TypedSpec()
				for id, text := range map[resource.ID]string{
					"kubeconfig-scheduler": s.SchedulerKubeconfig, "kubeconfig-controller-manager": s.ControllerManagerKubeconfig,
					"kubeconfig-localhost-admin": s.LocalhostAdminKubeconfig, "kubeconfig-admin": s.AdminKubeconfig,
				} {
					if crt := clientOf(text); len(crt) > 0 {
						out[id] = crt
					}
				}
			})
		},
	} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	for id, file := range kubeletFiles {
		if text, err := os.ReadFile(filepath.Join(kubeletPKI, file)); err == nil { // it may not have one yet
			out[id] = text
		}
	}
	return out, nil
}

// with calls fn with a resource, if it is there.
func with[R interface {
	generic.ResourceWithRD
	comparable
}](ctx context.Context, r controller.Reader, id resource.ID, fn func(R)) error {
	var none R
	res, err := reconcile.Get[R](ctx, r, id)
	if err == nil && res != none {
		fn(res)
	}
	return err
}

// clientOf is the certificate in a kubeconfig of ours.
func clientOf(text string) []byte {
	var k kubeconfig
	if yaml.Unmarshal([]byte(text), &k) != nil || len(k.Users) != 1 {
		return nil
	}
	crt, err := base64.StdEncoding.DecodeString(k.Users[0].User.Crt)
	if err != nil {
		return nil
	}
	return crt
}

// kubeletPKI is where the kubelet keeps what it was issued, with its keys.
const kubeletPKI = layout.KubeletDir + "/pki"

var kubeletFiles = map[resource.ID]string{"kubelet-client": "kubelet-client-current.pem", "kubelet-server": "kubelet-server-current.pem"}
