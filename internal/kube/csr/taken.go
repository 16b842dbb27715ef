package csr

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"

	"talos/internal/kube/node"
	"talos/internal/pki"
	"talos/internal/reconcile"
	"talos/internal/resources/cluster"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
)

// Taken is what the cluster knows of names and addresses beside what nodes say
// of themselves in the API: a node writes its own addresses there, and the
// authority that signs for kubelets is the one by which clients know the API
// server.
type Taken struct {
	Members   []cluster.MemberSpec
	APIServer []string // names and addresses that it is reached by
}

// Refusal says why a node must not serve as a name or an address; nil: it may.
func (t Taken) Refusal(name, what string) error {
	what = canonical(what)
	for _, m := range t.Members {
		if !has(m, what) {
			continue
		}
		if short, _, _ := strings.Cut(name, "."); short != node.Name(network.HostnameStatusSpec{Hostname: m.Hostname}, false) {
			return fmt.Errorf("%s is that of node %s", what, m.Hostname)
		}
		if m.MachineType == cluster.TypeControlPlane {
			return nil // its own API server is there too
		}
	}
	if slices.ContainsFunc(t.APIServer, func(a string) bool { return canonical(a) == what }) {
		return fmt.Errorf("%s is that of the API server", what)
	}
	return nil
}

// notControlPlane refuses the names of control plane nodes.
func (t Taken) notControlPlane(name string) error {
	short, _, _ := strings.Cut(name, ".")
	for _, m := range t.Members {
		if m.MachineType == cluster.TypeControlPlane && short == node.Name(network.HostnameStatusSpec{Hostname: m.Hostname}, false) {
			return fmt.Errorf("%s is that of a control plane node, which needs no bootstrap token", name)
		}
	}
	return nil
}

func has(m cluster.MemberSpec, what string) bool {
	host := canonical(m.Hostname)
	return what == host || strings.HasPrefix(what, host+".") ||
		slices.ContainsFunc(m.Addresses, func(a netip.Addr) bool { return a.Unmap().String() == what })
}

// canonical is a name or an address in the form in which they can be compared.
func canonical(what string) string {
	if addr, err := netip.ParseAddr(what); err == nil {
		return addr.Unmap().String()
	}
	return strings.ToLower(strings.TrimSuffix(what, "."))
}

// taken reads what this node knows; nil while it has no API server.
func taken(ctx context.Context, r controller.Reader) (*Taken, error) {
	certs, err := reconcile.Get[*secrets.KubernetesDynamicCerts](ctx, r, "k8s-certs")
	if err != nil || certs == nil || certs.TypedSpec().APIServer == nil {
		return nil, err
	}
	crt, err := pki.ParseCertificate(certs.TypedSpec().APIServer.Crt)
	if err != nil {
		return nil, fmt.Errorf("the API server's certificate: %w", err)
	}
	t := &Taken{APIServer: slices.Clone(crt.DNSNames)}
	for _, ip := range crt.IPAddresses {
		t.APIServer = append(t.APIServer, ip.String())
	}
	t.Members, err = reconcile.Specs[*cluster.Member](ctx, r, cluster.NewMember("").Metadata())
	return t, err
}
