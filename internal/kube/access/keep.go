package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"talos/internal/kube/api"
	"talos/internal/loop"
	"talos/internal/pki"
)

// Times of the keeper's work.
const (
	lookPause   = time.Minute // for what only time changes
	retryPause  = 5 * time.Second
	requestTime = 10 * time.Second
)

var ours = metav1.ListOptions{LabelSelector: labelKey + "=" + manager}

// keeper makes the cluster's objects as they should be.
type keeper struct {
	client *api.Client
	log    *slog.Logger
	in     *input
	ca     *pki.CA
	now    func() time.Time
}

// run works until ctx ends or a watch breaks.
func (k *keeper) run(ctx context.Context) error {
	if err := k.foundation(ctx); err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	notify := func(*unstructured.Unstructured) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	work, ctx := errgroup.WithContext(ctx)
	for _, of := range []struct {
		kind schema.GroupVersionResource
		opts metav1.ListOptions
	}{{accounts, metav1.ListOptions{}}, {secretGVR, ours}} {
		work.Go(func() error {
			return api.Follow(ctx, k.client.Resource(of.kind), of.opts, func() { notify(nil) }, notify, notify)
		})
	}
	work.Go(func() error { return k.loop(ctx, changed) })
	return work.Wait()
}

func (k *keeper) loop(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(lookPause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer.C:
			if err := k.foundation(ctx); err != nil {
				return err
			}
		}
		next := lookPause
		if err := k.pass(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("not every account is as it should be", "err", err)
			next = retryPause
		}
		timer.Reset(next)
	}
}

// foundation applies what accounts need: their kind, and the way to the nodes.
func (k *keeper) foundation(ctx context.Context) error {
	all := []struct {
		kind   schema.GroupVersionResource
		object *unstructured.Unstructured
	}{{crds, definition()}, {services, service()}}
	for family, list := range families(k.in.addresses) {
		all = append(all, struct {
			kind   schema.GroupVersionResource
			object *unstructured.Unstructured
		}{sliceGVR, endpoints(family, list)})
	}
	for _, a := range all {
		if err := k.apply(ctx, a.kind, a.object); err != nil {
			return err
		}
	}
	return k.served(ctx)
}

// served waits until the API serves the kind of accounts.
func (k *keeper) served(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	for {
		_, err := k.client.Resource(accounts).List(ctx, metav1.ListOptions{Limit: 1})
		if !apierrors.IsNotFound(err) {
			return err
		}
		if !loop.Sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("the API does not serve %s: %w", crdName, err)
		}
	}
}

func (k *keeper) apply(ctx context.Context, kind schema.GroupVersionResource, o *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	_, err := k.client.Resource(kind).Namespace(o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: manager, Force: true})
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// pass looks at every account. One that goes wrong does not keep the others.
func (k *keeper) pass(ctx context.Context) error {
	list, err := k.client.Resource(accounts).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list service accounts: %w", err)
	}
	errs := []error{k.orphans(ctx, list.Items)}
	for i := range list.Items {
		o := &list.Items[i]
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		if err := k.account(ctx, o); err != nil && ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("service account %s/%s: %w", o.GetNamespace(), o.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

// orphans deletes the Secrets whose accounts are gone. The cluster's garbage
// collector would, but learns of a new kind of owner after half a minute only.
func (k *keeper) orphans(ctx context.Context, living []unstructured.Unstructured) error {
	ids := map[types.UID]bool{}
	for _, o := range living {
		ids[o.GetUID()] = true
	}
	return deleteSecrets(ctx, k.client, func(owner types.UID) bool { return !ids[owner] })
}

// deleteSecrets deletes those of our Secrets that belong to accounts, where
// which says so.
func deleteSecrets(ctx context.Context, client *api.Client, which func(owner types.UID) bool) error {
	list, err := client.Resource(secretGVR).List(ctx, ours)
	if err != nil {
		return fmt.Errorf("list secrets: %w", err)
	}
	for _, s := range list.Items {
		for _, ref := range s.GetOwnerReferences() {
			if ref.APIVersion != accounts.GroupVersion().String() || !which(ref.UID) {
				continue
			}
			if err := gone(client.Resource(secretGVR).Namespace(s.GetNamespace()).Delete(ctx, s.GetName(), metav1.DeleteOptions{})); err != nil {
				return fmt.Errorf("delete secret %s/%s: %w", s.GetNamespace(), s.GetName(), err)
			}
		}
	}
	return nil
}

// account gives one account its Secret, or takes it away.
func (k *keeper) account(ctx context.Context, o *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	a := Account{Namespace: o.GetNamespace(), Name: o.GetName()}
	a.Roles, _, _ = unstructured.NestedStringSlice(o.Object, "spec", "roles") // malformed is none
	in := k.client.Resource(secretGVR).Namespace(a.Namespace)
	have, err := in.Get(ctx, a.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		have = nil
	} else if err != nil {
		return err
	}
	foreign := have != nil && !belongs(have, o)
	reason := Refusal(k.in.settings, a)
	if reason == "" && foreign {
		reason = fmt.Sprintf("Secret %q exists and is somebody else's", a.Name)
	}
	if reason != "" {
		if have != nil && !foreign {
			if err := gone(in.Delete(ctx, a.Name, metav1.DeleteOptions{})); err != nil {
				return err
			}
			k.log.Info("access to the API withdrawn", "namespace", a.Namespace, "name", a.Name, "reason", reason)
		}
		return k.tell(ctx, o, reason)
	}
	old := content(have)
	file, err := Talosconfig(old, a, k.ca, k.in.accepted, k.now())
	if err != nil {
		return err
	}
	if string(file) != string(old) {
		if err := k.apply(ctx, secretGVR, secret(o, file)); err != nil {
			return err
		}
		k.log.Info("access to the API given", "namespace", a.Namespace, "name", a.Name, "roles", a.Roles)
	}
	return k.tell(ctx, o, "")
}

// belongs tells whether we made a Secret for this very account.
func belongs(have, account *unstructured.Unstructured) bool {
	for _, ref := range have.GetOwnerReferences() {
		if ref.UID == account.GetUID() {
			return mine(have)
		}
	}
	return false
}

func content(secret *unstructured.Unstructured) []byte {
	if secret == nil {
		return nil
	}
	text, _, _ := unstructured.NestedString(secret.Object, "data", configKey)
	data, _ := base64.StdEncoding.DecodeString(text) // broken is replaced
	return data
}

// tell writes down why an account was refused, once, where its owner looks.
func (k *keeper) tell(ctx context.Context, o *unstructured.Unstructured, reason string) error {
	if told, _, _ := unstructured.NestedString(o.Object, "status", "failureReason"); told == reason {
		return nil
	}
	var value any
	if reason != "" {
		value = reason
	}
	patch, err := json.Marshal(m{"status": m{"failureReason": value}})
	if err != nil {
		return err
	}
	in := k.client.Resource(accounts).Namespace(o.GetNamespace())
	if _, err := in.Patch(ctx, o.GetName(), types.MergePatchType, patch, metav1.PatchOptions{FieldManager: manager}, "status"); err != nil {
		return gone(err)
	}
	if reason == "" {
		return nil
	}
	k.log.Warn("access to the API refused", "namespace", o.GetNamespace(), "name", o.GetName(), "reason", reason)
	at := k.now().UTC().Format(time.RFC3339)
	_, err = k.client.Resource(events).Namespace(o.GetNamespace()).Create(ctx, event(o, "Refused", reason, at), metav1.CreateOptions{FieldManager: manager})
	return err
}

func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// anything tells whether there is something to remove.
func anything(ctx context.Context, client *api.Client) (bool, error) {
	for _, of := range []struct {
		kind            schema.GroupVersionResource
		namespace, name string
	}{{crds, "", crdName}, {services, serviceNamespace, serviceName}} {
		o, err := client.Resource(of.kind).Namespace(of.namespace).Get(ctx, of.name, metav1.GetOptions{})
		if err == nil && mine(o) {
			return true, nil
		}
		if gone(err) != nil {
			return false, err
		}
	}
	return false, nil
}

// remove takes away everything that was made: Secrets first, so that whatever
// goes wrong after them, nobody has access.
func remove(ctx context.Context, log *slog.Logger, client *api.Client) error {
	if err := deleteSecrets(ctx, client, func(types.UID) bool { return true }); err != nil {
		return err
	}
	for _, of := range []struct {
		kind            schema.GroupVersionResource
		namespace, name string
	}{
		{sliceGVR, serviceNamespace, serviceName + "-4"}, {sliceGVR, serviceNamespace, serviceName + "-6"},
		{services, serviceNamespace, serviceName}, {crds, "", crdName}, {leases, metav1.NamespaceSystem, leaseName},
	} {
		in := client.Resource(of.kind).Namespace(of.namespace)
		o, err := in.Get(ctx, of.name, metav1.GetOptions{})
		if err == nil && (mine(o) || of.kind == leases) {
			err = in.Delete(ctx, of.name, metav1.DeleteOptions{})
		}
		if gone(err) != nil {
			return fmt.Errorf("delete %s %s: %w", of.kind.Resource, of.name, err)
		}
	}
	log.Info("access to the API from pods removed")
	return nil
}
