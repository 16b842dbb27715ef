// Package csr approves two kinds of certificates for kubelets. Those that they
// serve with, of signer kubernetes.io/kubelet-serving, which a node asks for
// itself: for names and addresses that the API says are that node's, and that
// the cluster does not know as another's. And the first one that a worker's
// kubelet speaks with, of signer kubernetes.io/kube-apiserver-client-kubelet,
// which the bootstrap token asks for: any name but a control plane node's, whose
// kubelets need no token. Every other request it leaves alone, for others to
// decide.
//
// The decisions are pure; the controller is run by the store's runtime on control
// plane nodes.
package csr

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"talos/internal/kube/api"
	"talos/internal/reconcile"
	"talos/internal/resources/cluster"
	"talos/internal/resources/secrets"
)

const (
	signer       = "kubernetes.io/kubelet-serving"
	clientSigner = "kubernetes.io/kube-apiserver-client-kubelet"
	nodeUser     = "system:node:"
	tokenUser    = "system:bootstrap:"
	nodes        = "system:nodes"
	// bootstrappers is the group of who shows the bootstrap token.
	bootstrappers = "system:bootstrappers:nodes"
)

var (
	requests = schema.GroupVersionResource{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests"}
	nodeGVR  = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
)

// Request is what the decision is made on.
type Request struct {
	Signer   string
	Username string
	Groups   []string
	Usages   []string
	PEM      []byte // the request itself
}

// Addresses are what the API knows of a node.
type Addresses struct {
	Names, IPs []string
}

// Decide says why a request must not be approved; nil: approve. of gives the
// addresses of a node by its name.
func Decide(r Request, of func(node string) (Addresses, error), t Taken) error {
	if r.Signer == clientSigner {
		return decideClient(r, t)
	}
	name, ok := strings.CutPrefix(r.Username, nodeUser)
	switch {
	case r.Signer != signer:
		return fmt.Errorf("signer is %q", r.Signer)
	case !ok || name == "" || !slices.Contains(r.Groups, nodes):
		return fmt.Errorf("requester %q is not a node", r.Username)
	}
	c, err := parse(r, "server auth")
	if err != nil {
		return err
	}
	if c.Subject.CommonName != r.Username || !slices.Equal(c.Subject.Organization, []string{nodes}) {
		return fmt.Errorf("subject %q is not the requester's", c.Subject)
	}
	return checkNames(c, name, of, t)
}

// decideClient decides on the first certificate of a kubelet, which makes its
// holder that node. When the node renews it, it asks as itself.
func decideClient(r Request, t Taken) error {
	if !strings.HasPrefix(r.Username, tokenUser) || !slices.Contains(r.Groups, bootstrappers) {
		return fmt.Errorf("requester %q is not a bootstrap token", r.Username)
	}
	c, err := parse(r, "client auth")
	if err != nil {
		return err
	}
	name, ok := strings.CutPrefix(c.Subject.CommonName, nodeUser)
	switch {
	case !ok || name == "" || !slices.Equal(c.Subject.Organization, []string{nodes}):
		return fmt.Errorf("subject %q is not a node's", c.Subject)
	case len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) > 0:
		return errors.New("request of a client names hosts or addresses")
	}
	return t.notControlPlane(name)
}

// parse reads a request that is for one usage and what that needs.
func parse(r Request, usage string) (*x509.CertificateRequest, error) {
	for _, u := range r.Usages {
		if u != "digital signature" && u != "key encipherment" && u != usage {
			return nil, fmt.Errorf("usage %q is not needed for %s", u, usage)
		}
	}
	if !slices.Contains(r.Usages, usage) {
		return nil, fmt.Errorf("usage %s is missing", usage)
	}
	block, rest := pem.Decode(r.PEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("request is not one PEM block")
	}
	c, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if err := c.CheckSignature(); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	return c, nil
}

func checkNames(c *x509.CertificateRequest, name string, of func(string) (Addresses, error), t Taken) error {
	if len(c.EmailAddresses) > 0 || len(c.URIs) > 0 {
		return errors.New("request names more than hosts and addresses")
	}
	if len(c.DNSNames)+len(c.IPAddresses) == 0 {
		return errors.New("request names nothing")
	}
	has, err := of(name)
	if err != nil {
		return fmt.Errorf("addresses of node %s: %w", name, err)
	}
	for _, d := range c.DNSNames {
		if !slices.Contains(has.Names, d) {
			return fmt.Errorf("%q is not a name of node %s", d, name)
		}
		if err := t.Refusal(name, d); err != nil {
			return err
		}
	}
	for _, ip := range c.IPAddresses {
		if !slices.Contains(has.IPs, ip.String()) {
			return fmt.Errorf("%s is not an address of node %s", ip, name)
		}
		if err := t.Refusal(name, ip.String()); err != nil {
			return err
		}
	}
	return nil
}

// Controller approves on control plane nodes: where there is an administrator's
// kubeconfig.
func Controller(log *slog.Logger) controller.Controller {
	var task reconcile.Task
	var known atomic.Pointer[Taken]
	return &reconcile.Controller{
		ID:  "k8s.KubeletCSRApproverController",
		Log: log,
		In: []controller.Input{
			reconcile.Input[*secrets.KubernetesSecrets](), reconcile.Input[*secrets.KubernetesDynamicCerts](), reconcile.Input[*cluster.Member](),
		},
		Close: task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			sec, err := reconcile.Get[*secrets.KubernetesSecrets](ctx, r, "k8s-secrets")
			if err != nil || sec == nil || sec.TypedSpec().LocalhostAdminKubeconfig == "" {
				task.Stop()
				return err
			}
			t, err := taken(ctx, r)
			if err != nil || t == nil {
				task.Stop()
				return err
			}
			known.Store(t)
			kubeconfig := sec.TypedSpec().LocalhostAdminKubeconfig
			task.Ensure(ctx, log, kubeconfig, func(ctx context.Context) error { return run(ctx, log, []byte(kubeconfig), &known) })
			return nil
		},
	}
}

// run approves until ctx ends or the watch breaks.
func run(ctx context.Context, log *slog.Logger, kubeconfig []byte, known *atomic.Pointer[Taken]) error {
	client, err := api.New(kubeconfig)
	if err != nil {
		return err
	}
	if err := client.AwaitReady(ctx); err != nil {
		return err
	}
	a := approver{client: client, log: log, known: known, open: map[string]*unstructured.Unstructured{}}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { a.again(ctx) })
	return api.Follow(ctx, client.Resource(requests), metav1.ListOptions{}, func() {},
		func(o *unstructured.Unstructured) { a.consider(ctx, o) }, func(o *unstructured.Unstructured) { a.forget(o.GetName()) })
}

// approver looks again at requests that it could not approve: a new node's
// addresses may reach the API after its request.
type approver struct {
	client *api.Client
	log    *slog.Logger
	known  *atomic.Pointer[Taken] // never empty

	mu   sync.Mutex // guards open
	open map[string]*unstructured.Unstructured
}

const (
	retry = 2 * time.Second
	limit = 1000 // of requests that are looked at again
)

func (a *approver) again(ctx context.Context) {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.mu.Lock()
		var list []*unstructured.Unstructured
		for _, o := range a.open {
			list = append(list, o)
		}
		a.mu.Unlock()
		for _, o := range list {
			a.consider(ctx, o)
		}
	}
}

func (a *approver) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, name)
}

func (a *approver) consider(ctx context.Context, o *unstructured.Unstructured) {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	if len(conditions) > 0 { // decided
		a.forget(o.GetName())
		return
	}
	r := request(o)
	if r.Signer != signer && (r.Signer != clientSigner || slices.Contains(r.Groups, nodes)) {
		return // others decide on it: the controller manager on a node's renewal
	}
	err := Decide(r, func(node string) (Addresses, error) { return a.addresses(ctx, node) }, *a.known.Load())
	if err == nil {
		err = a.approve(ctx, o)
	}
	if err == nil || apierrors.IsNotFound(err) || time.Since(o.GetCreationTimestamp().Time) > time.Hour {
		a.forget(o.GetName())
		return
	}
	a.mu.Lock()
	_, known := a.open[o.GetName()]
	if len(a.open) < limit {
		a.open[o.GetName()] = o
	}
	a.mu.Unlock()
	if !known {
		a.log.Info("certificate request not approved", "request", o.GetName(), "requester", r.Username, "reason", err)
	}
}

func request(o *unstructured.Unstructured) Request {
	var r Request
	r.Signer, _, _ = unstructured.NestedString(o.Object, "spec", "signerName")
	r.Username, _, _ = unstructured.NestedString(o.Object, "spec", "username")
	r.Groups, _, _ = unstructured.NestedStringSlice(o.Object, "spec", "groups")
	r.Usages, _, _ = unstructured.NestedStringSlice(o.Object, "spec", "usages")
	text, _, _ := unstructured.NestedString(o.Object, "spec", "request")
	r.PEM, _ = base64.StdEncoding.DecodeString(text) // broken is no PEM
	return r
}

func (a *approver) addresses(ctx context.Context, node string) (Addresses, error) {
	o, err := a.client.Resource(nodeGVR).Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return Addresses{}, err
	}
	var out Addresses
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "addresses")
	for _, e := range list {
		entry, _ := e.(map[string]any)
		address, _ := entry["address"].(string)
		switch entry["type"] {
		case "Hostname", "InternalDNS", "ExternalDNS":
			out.Names = append(out.Names, address)
		case "InternalIP", "ExternalIP":
			out.IPs = append(out.IPs, address)
		}
	}
	return out, nil
}

func (a *approver) approve(ctx context.Context, o *unstructured.Unstructured) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": o.GetResourceVersion()},
		"status": map[string]any{"conditions": []any{map[string]any{
			"type": "Approved", "status": "True", "reason": "TalosNode",
			"message": "what is asked for is the node's", "lastUpdateTime": metav1.Now(),
		}}},
	})
	if err != nil {
		return fmt.Errorf("encode approval: %w", err)
	}
	_, err = a.client.Resource(requests).Patch(ctx, o.GetName(), types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "talos"}, "approval")
	return err
}
