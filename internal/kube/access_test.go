package kube

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"talos/client/talosconfig"
	"talos/config"
	"talos/internal/kube/api"
	"talos/internal/kube/lease"
	"talos/internal/pki"
	configres "talos/internal/resources/config"
	secretres "talos/internal/resources/secrets"
)

var (
	accessAccounts = schema.GroupVersionResource{Group: "talos.dev", Version: "v1alpha1", Resource: "serviceaccounts"}
	accessSecrets  = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	accessEvents   = schema.GroupVersionResource{Version: "v1", Resource: "events"}
)

// allow changes what the configuration says of access from pods.
func (w *world) allow(t *testing.T, enabled bool, roles ...string) {
	t.Helper()
	w.cfg.Machine.Features.KubernetesTalosAPIAccess = &config.KubernetesTalosAPIAccess{
		Enabled: &enabled, AllowedRoles: roles, AllowedKubernetesNamespaces: []string{"default"},
	}
	document, err := w.cfg.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := safe.StateUpdateWithConflicts(t.Context(), w.State, configres.NewMachineConfig(configres.ActiveID).Metadata(), func(c *configres.MachineConfig) error {
		c.TypedSpec().Document = document
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// account asks for access.
func account(t *testing.T, c *api.Client, namespace, name string, roles ...any) {
	t.Helper()
	eventually(t, "service account "+name, func() error {
		_, err := c.Resource(accessAccounts).Namespace(namespace).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "talos.dev/v1alpha1", "kind": "ServiceAccount", "metadata": map[string]any{"name": name}, "spec": map[string]any{"roles": roles},
		}}, metav1.CreateOptions{})
		return err
	})
}

func refusal(t *testing.T, c *api.Client, namespace, name string) (string, error) {
	t.Helper()
	o, err := c.Resource(accessAccounts).Namespace(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	reason, _, _ := unstructured.NestedString(o.Object, "status", "failureReason")
	return reason, nil
}

// access makes accounts and looks at what they get, until the feature is
// switched off.
func (w *world) access(t *testing.T) {
	c := w.admin(t)
	secret := func(namespace, name string) (*unstructured.Unstructured, error) {
		return c.Resource(accessSecrets).Namespace(namespace).Get(t.Context(), name, metav1.GetOptions{})
	}
	w.allow(t, true, "os:reader", "os:operator")
	account(t, c, "default", "reader", "os:reader")
	account(t, c, "default", "operator", "os:operator")
	account(t, c, "default", "greedy", "os:reader", "os:admin")
	account(t, c, "kube-system", "elsewhere", "os:reader")
	w.given(t, "reader", secret)
	await(t, w.State, secretres.NewApiCertificate("api"), func(r *secretres.ApiCertificate) bool {
		return r.TypedSpec().Server != nil && servesName(r.TypedSpec().Server.Crt, "talos.default")
	})
	for _, gvr := range []schema.GroupVersionResource{{Version: "v1", Resource: "services"}, {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}} {
		list, err := c.Resource(gvr).Namespace("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=talos"})
		if err != nil || len(list.Items) != 1 {
			t.Errorf("%s: %v, %v; want one", gvr.Resource, list, err)
		}
	}
	for name, namespace := range map[string]string{"greedy": "default", "elsewhere": "kube-system"} {
		eventually(t, name+" is refused", func() error {
			reason, err := refusal(t, c, namespace, name)
			if err == nil && reason == "" {
				err = errors.New("no reason")
			}
			return err
		})
		if _, err := secret(namespace, name); !apierrors.IsNotFound(err) {
			t.Errorf("secret of %s: %v, want none", name, err)
		}
		eventually(t, "an event says so", func() error {
			list, err := c.Resource(accessEvents).Namespace(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + name + ",reason=Refused"})
			if err == nil && len(list.Items) != 1 {
				err = fmt.Errorf("%d events", len(list.Items))
			}
			return err
		})
	}
	if err := c.Resource(accessSecrets).Namespace("default").Delete(t.Context(), "reader", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.given(t, "reader", secret)
	isGone := func(name string) func() error {
		return func() error {
			if _, err := secret("default", name); !apierrors.IsNotFound(err) {
				return fmt.Errorf("secret %s: %v, want none", name, err)
			}
			return nil
		}
	}
	w.allow(t, true, "os:reader")
	eventually(t, "a role that is no longer allowed is withdrawn", isGone("operator"))
	if err := c.Resource(accessAccounts).Namespace("default").Delete(t.Context(), "reader", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the secret goes with its account", isGone("reader"))
	account(t, c, "default", "last", "os:reader")
	w.given(t, "last", secret)
	w.allow(t, false)
	eventually(t, "nothing is left", func() error {
		if err := isGone("last")(); err != nil {
			return err
		}
		for _, of := range []struct {
			gvr             schema.GroupVersionResource
			namespace, name string
		}{
			{schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}, "", "serviceaccounts.talos.dev"},
			{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "default", "talos"},
			{schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}, "default", "talos-4"},
			{schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}, "kube-system", "talos-api-access"},
		} {
			if _, err := c.Resource(of.gvr).Namespace(of.namespace).Get(t.Context(), of.name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s %s: %v, want none", of.gvr.Resource, of.name, err)
			}
		}
		return nil
	})
}

func servesName(crt []byte, name string) bool {
	c, err := pki.ParseCertificate(crt)
	return err == nil && c.VerifyHostname(name) == nil
}

// given waits for an account's Secret and looks into it.
func (w *world) given(t *testing.T, name string, secret func(namespace, name string) (*unstructured.Unstructured, error)) {
	t.Helper()
	var text string
	eventually(t, "secret of "+name, func() error {
		s, err := secret("default", name)
		if err == nil {
			text, _, err = unstructured.NestedString(s.Object, "data", "config")
		}
		return err
	})
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	file, err := talosconfig.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := file.Select("")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ctx.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(pair.Leaf.Subject.Organization, " "); got != "os:reader" {
		t.Errorf("%s has roles %q, want os:reader", name, got)
	}
}

// leaseIsExclusive: of two that claim a lease one works at a time, and the
// other follows as soon as the first lets go.
func (w *world) leaseIsExclusive(t *testing.T) {
	c := w.admin(t)
	claim := func(id string) lease.Claim {
		return lease.Claim{Client: c, Log: slog.New(slog.DiscardHandler), Name: "test", Identity: id}
	}
	working := make(chan string, 2)
	work := func(ctx context.Context, id string) <-chan error {
		done := make(chan error, 1)
		go func() {
			done <- lease.Hold(ctx, claim(id), func(ctx context.Context) error {
				working <- id
				<-ctx.Done()
				return ctx.Err()
			})
		}()
		return done
	}
	first, stop := context.WithCancel(t.Context())
	firstDone := work(first, "one")
	if id := <-working; id != "one" {
		t.Fatalf("%s works first", id)
	}
	second, stopSecond := context.WithCancel(t.Context())
	defer stopSecond()
	secondDone := work(second, "two")
	select {
	case id := <-working:
		t.Fatalf("%s works while one holds the lease", id)
	case <-time.After(3 * time.Second):
	}
	stop()
	if err := <-firstDone; !errors.Is(err, context.Canceled) {
		t.Errorf("Hold = %v, want that it was cancelled", err)
	}
	select {
	case <-working:
	case <-time.After(time.Minute):
		t.Fatal("two does not follow")
	}
	// Somebody takes it away: the work ends.
	leases := schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	eventually(t, "robbed", func() error {
		o, err := c.Resource(leases).Namespace("kube-system").Get(t.Context(), "test", metav1.GetOptions{})
		if err != nil {
			return err
		}
		o.Object["spec"] = map[string]any{"holderIdentity": "thief"}
		_, err = c.Resource(leases).Namespace("kube-system").Update(t.Context(), o, metav1.UpdateOptions{})
		return err
	})
	select {
	case err := <-secondDone:
		if err == nil || errors.Is(second.Err(), context.Canceled) || !strings.Contains(err.Error(), "lease lost") {
			t.Errorf("Hold = %v, want that the lease was lost", err)
		}
	case <-time.After(time.Minute):
		t.Error("work goes on without the lease")
	}
}
