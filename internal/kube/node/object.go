package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"talos/internal/configstore/active"
	"talos/internal/kube/api"
	"talos/internal/kube/drain"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/secrets"
)

var (
	nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	pods  = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// kubeletID is package kubelet's ID, which imports this one.
const kubeletID = resource.ID("kubelet")

// seen is what a watch has told; the watch writes it, the controller reads it.
type seen struct {
	mu      sync.Mutex // guards the fields below
	objects map[string]*unstructured.Unstructured
	client  *api.Client
}

func (s *seen) begin(c *api.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects, s.client = map[string]*unstructured.Unstructured{}, c
}

func (s *seen) set(key string, obj *unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if obj == nil {
		delete(s.objects, key)
		return
	}
	s.objects[key] = obj
}

func (s *seen) all() (map[string]*unstructured.Unstructured, *api.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]*unstructured.Unstructured, len(s.objects))
	for k, v := range s.objects {
		out[k] = v
	}
	return out, s.client
}

func key(obj *unstructured.Unstructured) string {
	if obj.GetNamespace() == "" {
		return obj.GetName()
	}
	return obj.GetNamespace() + "/" + obj.GetName()
}

// watcher follows objects in a task and wakes its controller.
type watcher struct {
	options Options
	seen    seen
	task    reconcile.Task
}

// ensure makes the watch run for this node name and these credentials; false:
// one of them is not there yet.
func (w *watcher) ensure(ctx context.Context, r controller.Runtime, log *slog.Logger, from schema.GroupVersionResource, opts func(name string) metav1.ListOptions) (string, bool, error) {
	name, err := reconcile.Get[*k8s.Nodename](ctx, r, NameID)
	if err != nil || name == nil || name.TypedSpec().SkipNodeRegistration {
		w.task.Stop()
		return "", false, err
	}
	node := name.TypedSpec().Nodename
	kubeconfig, err := w.options.Kubeconfig(ctx, r)
	if err != nil {
		return "", false, err
	}
	if kubeconfig == nil { // a worker's kubelet has not got its certificate yet, and no resource says when
		w.task.Stop()
		time.AfterFunc(500*time.Millisecond, r.QueueReconcile)
		return "", false, nil
	}
	w.task.Ensure(ctx, log, node+"\n"+string(kubeconfig), func(ctx context.Context) error {
		client, err := api.New(kubeconfig)
		if err != nil {
			return err
		}
		if err := client.AwaitReady(ctx); err != nil {
			return err
		}
		return api.Follow(ctx, client.Resource(from), opts(node),
			func() { w.seen.begin(client); r.QueueReconcile() },
			func(o *unstructured.Unstructured) { w.seen.set(key(o), o); r.QueueReconcile() },
			func(o *unstructured.Unstructured) { w.seen.set(key(o), nil); r.QueueReconcile() })
	})
	return node, true, nil
}

var watchInputs = []controller.Input{
	active.Input(),
	reconcile.InputID[*k8s.Nodename](NameID),
	reconcile.Input[*secrets.KubernetesSecrets](),
	reconcile.Input[*k8s.KubeletStatus](),
}

// newObjectController watches this machine's Node, shows it as a NodeStatus and
// gives it what the configuration wants it to have.
func newObjectController(o Options) controller.Controller {
	w := &watcher{options: o}
	return &reconcile.Controller{
		ID:  "k8s.NodeApplyController",
		Log: o.Log,
		In: append([]controller.Input{
			reconcile.Input[*k8s.NodeLabelSpec](), reconcile.Input[*k8s.NodeAnnotationSpec](), reconcile.Input[*k8s.NodeTaintSpec](),
		}, watchInputs...),
		Out:   []resource.Kind{reconcile.Kind[*k8s.NodeStatus]()},
		Close: w.task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			name, ok, err := w.ensure(ctx, r, log, nodes, func(name string) metav1.ListOptions {
				return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
			})
			if err != nil || !ok {
				return err
			}
			objects, client := w.seen.all()
			obj := objects[name]
			if obj == nil {
				return nil
			}
			if err := writeStatus(ctx, r, obj); err != nil {
				return err
			}
			if err := uncordon(ctx, r, client, obj, o.Boot, log); err != nil {
				return err
			}
			return apply(ctx, r, client, obj, log)
		},
	}
}

func writeStatus(ctx context.Context, w controller.Writer, obj *unstructured.Unstructured) error {
	return safe.WriterModify(ctx, w, k8s.NewNodeStatus(obj.GetName()), func(s *k8s.NodeStatus) error {
		*s.TypedSpec() = status(obj)
		return nil
	})
}

func status(obj *unstructured.Unstructured) k8s.NodeStatusSpec {
	spec := k8s.NodeStatusSpec{Nodename: obj.GetName(), Labels: obj.GetLabels(), Annotations: obj.GetAnnotations()}
	spec.Unschedulable, _, _ = unstructured.NestedBool(obj.Object, "spec", "unschedulable")
	cidrs, _, _ := unstructured.NestedStringSlice(obj.Object, "spec", "podCIDRs")
	for _, c := range cidrs {
		if p, err := netip.ParsePrefix(c); err == nil {
			spec.PodCIDRs = append(spec.PodCIDRs, p)
		}
	}
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Ready" {
			spec.NodeReady = c["status"] == "True"
		}
	}
	return spec
}

// uncordon takes back the cordon of an earlier boot when pods can run again.
func uncordon(ctx context.Context, r controller.Reader, client *api.Client, obj *unstructured.Unstructured, boot string, log *slog.Logger) error {
	patch := drain.UncordonPatch(obj, boot)
	if patch == nil {
		return nil
	}
	running, err := reconcile.Get[*k8s.KubeletStatus](ctx, r, kubeletID)
	if err != nil || running == nil {
		return err
	}
	if err := patchNode(ctx, client, obj, patch); err != nil {
		return err
	}
	log.Info("node uncordoned: it had cordoned itself before it went down")
	return nil
}

func patchNode(ctx context.Context, client *api.Client, obj *unstructured.Unstructured, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode patch of node %s: %w", obj.GetName(), err)
	}
	_, err = client.Resource(nodes).Patch(ctx, obj.GetName(), types.MergePatchType, data, metav1.PatchOptions{FieldManager: "talos"})
	if err != nil {
		return fmt.Errorf("patch node %s: %w", obj.GetName(), err)
	}
	return nil
}

func apply(ctx context.Context, r controller.Reader, client *api.Client, obj *unstructured.Unstructured, log *slog.Logger) error {
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return err
	}
	want, err := readSpecs(ctx, r)
	if err != nil {
		return err
	}
	patch := Plan(obj, want, cfg.IsControlPlane())
	if patch == nil {
		return nil
	}
	if err := patchNode(ctx, client, obj, patch); err != nil {
		return err
	}
	log.Debug("node patched", "patch", patch)
	return nil
}

func readSpecs(ctx context.Context, r controller.Reader) (Wanted, error) {
	w := Wanted{Labels: map[string]string{}, Annotations: map[string]string{}}
	labels, err := safe.ReaderListAll[*k8s.NodeLabelSpec](ctx, r)
	if err != nil {
		return w, fmt.Errorf("list node labels: %w", err)
	}
	annotations, err := safe.ReaderListAll[*k8s.NodeAnnotationSpec](ctx, r)
	if err != nil {
		return w, fmt.Errorf("list node annotations: %w", err)
	}
	taints, err := safe.ReaderListAll[*k8s.NodeTaintSpec](ctx, r)
	if err != nil {
		return w, fmt.Errorf("list node taints: %w", err)
	}
	for l := range labels.All() {
		w.Labels[l.TypedSpec().Key] = l.TypedSpec().Value
	}
	for a := range annotations.All() {
		w.Annotations[a.TypedSpec().Key] = a.TypedSpec().Value
	}
	for t := range taints.All() {
		s := t.TypedSpec()
		w.Taints = append(w.Taints, Taint{Key: s.Key, Value: s.Value, Effect: s.Effect})
	}
	return w, nil
}
