package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"talos/internal/kube/api"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/secrets"
)

const (
	manager       = "talos"
	inventoryName = "talos-manifests"
	inventoryKey  = "inventory.json"
	retryPause    = 250 * time.Millisecond
	longestPause  = 10 * time.Second
)

// progress is what was applied; the task writes it, the controller reads it.
type progress struct {
	mu   sync.Mutex // guards done
	done []string
}

func (p *progress) set(done []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = slices.Clone(done)
}

func (p *progress) get() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// group is one Manifest resource on its way into the cluster.
type group struct {
	name    string
	objects []*unstructured.Unstructured
}

func applyController(log *slog.Logger) controller.Controller {
	var task reconcile.Task
	var p progress
	return &reconcile.Controller{
		ID:    "k8s.ManifestApplyController",
		Log:   log,
		In:    []controller.Input{reconcile.Input[*k8s.Manifest](), reconcile.Input[*secrets.KubernetesSecrets]()},
		Out:   []resource.Kind{reconcile.Kind[*k8s.ManifestStatus]()},
		Close: task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			sec, err := reconcile.Get[*secrets.KubernetesSecrets](ctx, r, "k8s-secrets")
			if err != nil || sec == nil || sec.TypedSpec().LocalhostAdminKubeconfig == "" {
				return err
			}
			groups, err := readGroups(ctx, r)
			if err != nil || len(groups) == 0 {
				return err
			}
			kubeconfig := []byte(sec.TypedSpec().LocalhostAdminKubeconfig)
			task.Ensure(ctx, log, fingerprint(groups), func(ctx context.Context) error {
				client, err := api.New(kubeconfig)
				if err != nil {
					return err
				}
				return Apply(ctx, log, client, groups, func(done []string) { p.set(done); r.QueueReconcile() })
			})
			done := p.get()
			if len(done) == 0 {
				return nil
			}
			return safe.WriterModify(ctx, r, k8s.NewManifestStatus(statusID), func(s *k8s.ManifestStatus) error {
				s.TypedSpec().ManifestsApplied = done
				return nil
			})
		},
	}
}

func readGroups(ctx context.Context, r controller.Reader) ([]group, error) {
	list, err := safe.ReaderListAll[*k8s.Manifest](ctx, r)
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	var out []group
	for m := range list.All() {
		g := group{name: m.Metadata().ID()}
		for _, item := range m.TypedSpec().Items {
			o, err := normal(item.Object.Values)
			if err != nil {
				return nil, fmt.Errorf("manifest %s: %w", g.name, err)
			}
			g.objects = append(g.objects, o)
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b group) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// normal gives an object the value types that JSON has, which the client wants.
func normal(values map[string]any) (*unstructured.Unstructured, error) {
	data, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("encode object: %w", err)
	}
	o := new(unstructured.Unstructured)
	if err := o.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("decode object: %w", err)
	}
	return o, nil
}

func fingerprint(groups []group) string {
	var all []any
	for _, g := range groups {
		all = append(all, g.name)
		for _, o := range g.objects {
			all = append(all, o.Object)
		}
	}
	return checksum(all)
}

// Apply puts the objects into the cluster, whatever it takes; it returns when
// all are there. After each pass it reports the groups that are.
func Apply(ctx context.Context, log *slog.Logger, client *api.Client, groups []group, report func([]string)) error {
	if err := client.AwaitReady(ctx); err != nil {
		return err
	}
	inv, err := readInventory(ctx, client)
	if err != nil {
		return err
	}
	applied := map[*unstructured.Unstructured]bool{}
	for pause, pass := retryPause, 0; ; pause, pass = min(pause*3/2, longestPause), pass+1 {
		err := applyPass(ctx, client, inv, ordered(groups), applied)
		report(complete(groups, applied))
		if werr := inv.write(ctx, client); werr != nil {
			err = errors.Join(err, werr)
		}
		if err == nil {
			log.Info("manifests applied", "objects", len(applied))
			return nil
		}
		level := slog.LevelDebug
		if pass > 20 {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "manifests not applied yet", "err", err, "pause", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// ordered is every object, what others need before them first.
func ordered(groups []group) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, g := range groups {
		out = append(out, g.objects...)
	}
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return out
}

func rank(o *unstructured.Unstructured) int {
	switch o.GetKind() {
	case "Namespace":
		return 0
	case "CustomResourceDefinition":
		return 1
	default:
		return 2
	}
}

func complete(groups []group, applied map[*unstructured.Unstructured]bool) []string {
	var out []string
	for _, g := range groups {
		if !slices.ContainsFunc(g.objects, func(o *unstructured.Unstructured) bool { return !applied[o] }) {
			out = append(out, g.name)
		}
	}
	return out
}

func applyPass(ctx context.Context, client *api.Client, inv *inventory, all []*unstructured.Unstructured, applied map[*unstructured.Unstructured]bool) error {
	var errs []error
	for _, o := range all {
		if applied[o] {
			continue
		}
		if err := applyOne(ctx, client, inv, o); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ident(o), err))
			continue
		}
		applied[o] = true
	}
	return errors.Join(errs...)
}

func applyOne(ctx context.Context, client *api.Client, inv *inventory, o *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	to, err := client.For(ctx, o)
	if err != nil {
		return err
	}
	sum := checksum(o.Object)
	if inv.sums[ident(o)] == sum {
		_, err := to.Get(ctx, o.GetName(), metav1.GetOptions{})
		if err == nil || !apierrors.IsNotFound(err) {
			return err
		}
	}
	if _, err = to.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: manager, Force: true}); err != nil {
		return err
	}
	inv.set(ident(o), sum)
	return nil
}

func ident(o *unstructured.Unstructured) string {
	k := o.GroupVersionKind()
	return strings.Join([]string{k.Group, k.Kind, o.GetNamespace(), o.GetName()}, "/")
}

// inventory remembers, in the cluster, what was applied: a checksum by object.
type inventory struct {
	sums    map[string]string
	changed bool
}

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

func readInventory(ctx context.Context, client *api.Client) (*inventory, error) {
	inv := &inventory{sums: map[string]string{}}
	o, err := client.Resource(configMaps).Namespace(system).Get(ctx, inventoryName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return inv, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read inventory: %w", err)
	}
	data, _, _ := unstructured.NestedString(o.Object, "data", inventoryKey)
	if json.Unmarshal([]byte(data), &inv.sums) != nil || inv.sums == nil {
		inv.sums = map[string]string{} // broken: everything is applied again
	}
	return inv, nil
}

func (i *inventory) set(key, sum string) {
	i.sums[key] = sum
	i.changed = true
}

func (i *inventory) write(ctx context.Context, client *api.Client) error {
	if !i.changed {
		return nil
	}
	data, err := json.Marshal(i.sums)
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	patch, err := json.Marshal(m{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": m{"name": inventoryName, "namespace": system},
		"data":     m{inventoryKey: string(data)},
	})
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	force := true
	_, err = client.Resource(configMaps).Namespace(system).Patch(ctx, inventoryName, types.ApplyPatchType, patch, metav1.PatchOptions{FieldManager: manager, Force: &force})
	if err != nil {
		return fmt.Errorf("write inventory: %w", err)
	}
	i.changed = false
	return nil
}
