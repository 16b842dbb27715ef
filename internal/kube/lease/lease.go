// Package lease frees the leases that this machine's controller manager and
// scheduler held before it was started again. Their successors can't know that
// the holder is gone and would wait until the lease runs out: a quarter of a
// minute in which the cluster has no controllers, after every reboot.
//
// Hold is for what one control plane node at a time may do.
//
// Stale is pure; the controller is run by the store's runtime on control plane
// nodes.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"talos/internal/kube/api"
	"talos/internal/reconcile"
	"talos/internal/resources/secrets"
)

var (
	leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	names  = []string{"kube-controller-manager", "kube-scheduler"}
)

// Stale says whether a lease's holder ran on host and can't run any more: it
// renewed the lease for the last time before started. Holders are named after
// their host, an underscore and something random.
func Stale(holder string, renewed time.Time, host string, started time.Time) bool {
	return host != "" && strings.HasPrefix(holder, host+"_") && !renewed.IsZero() && renewed.Before(started)
}

// Controller frees the leases once per start of machined, which was at started.
func Controller(log *slog.Logger, started time.Time) controller.Controller {
	var task reconcile.Task
	return &reconcile.Controller{
		ID:    "k8s.StaleLeaseController",
		Log:   log,
		In:    []controller.Input{reconcile.Input[*secrets.KubernetesSecrets]()},
		Close: task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			sec, err := reconcile.Get[*secrets.KubernetesSecrets](ctx, r, "k8s-secrets")
			if err != nil || sec == nil || sec.TypedSpec().LocalhostAdminKubeconfig == "" {
				return err
			}
			kubeconfig := []byte(sec.TypedSpec().LocalhostAdminKubeconfig)
			task.Ensure(ctx, log, "once", func(ctx context.Context) error { return free(ctx, log, kubeconfig, started) })
			return nil
		},
	}
}

func free(ctx context.Context, log *slog.Logger, kubeconfig []byte, started time.Time) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	client, err := api.New(kubeconfig)
	if err != nil {
		return err
	}
	if err := client.AwaitReady(ctx); err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		freed, err := freeOne(ctx, client, name, host, started)
		if err != nil {
			errs = append(errs, fmt.Errorf("lease %s: %w", name, err))
		}
		if freed {
			log.Info("lease freed: its holder ran here before this machine was started again", "lease", name)
		}
	}
	return errors.Join(errs...)
}

// freeOne does what a leader does that gives up: no holder, and one second left.
// The version that was read goes with it, so that a new holder is never robbed.
func freeOne(ctx context.Context, client *api.Client, name, host string, started time.Time) (bool, error) {
	in := client.Resource(leases).Namespace(metav1.NamespaceSystem)
	o, err := in.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	spec, err := holding(o)
	if err != nil || !Stale(spec.holder, spec.renewed, host, started) {
		return false, err
	}
	fields := o.Object["spec"].(map[string]any) // holding has seen that it is one
	fields["holderIdentity"], fields["leaseDurationSeconds"] = "", int64(1)
	_, err = in.Update(ctx, o, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) { // somebody holds it already
		return false, nil
	}
	return err == nil, err
}

type held struct {
	holder  string
	renewed time.Time
}

func holding(o *unstructured.Unstructured) (held, error) {
	holder, _, err := unstructured.NestedString(o.Object, "spec", "holderIdentity")
	if err != nil || holder == "" {
		return held{}, err
	}
	text, _, err := unstructured.NestedString(o.Object, "spec", "renewTime")
	if err != nil {
		return held{}, err
	}
	renewed, err := time.Parse(time.RFC3339Nano, text)
	return held{holder, renewed}, err
}
