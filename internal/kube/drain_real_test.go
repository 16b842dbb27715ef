package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"talos/internal/kube/api"
	"talos/internal/kube/drain"
	"talos/internal/resources/k8s"
)

// drain takes the node out of service with its own credentials, as a worker
// does, and checks that these are enough for itself and for nobody else.
func (w *world) drain(t *testing.T) {
	admin, own := w.admin(t), w.kubelet(t)
	said := make(chan string, 100)
	say := func(text string) { said <- text }
	as := func(c *api.Client, boot string) *drain.Node {
		return &drain.Node{Boot: boot, Connect: func(context.Context) (*api.Client, string, error) { return c, nodeName, nil }}
	}

	// Without another node there is nowhere to go, which only an administrator can see.
	if err := errors.Join(as(admin, "now").Cordon(t.Context()), as(admin, "now").Drain(t.Context(), say)); err != nil {
		t.Fatal(err)
	}
	if text := <-said; !strings.Contains(text, "no other node") || w.cordoned(t) {
		t.Errorf("alone: said %q, cordoned %t, want nothing to happen", text, w.cordoned(t))
	}

	w.secondNode(t)
	w.pod(t, "held", "node-1")
	w.pod(t, "free", "node-1")
	w.pod(t, "elsewhere", "node-2")
	w.budget(t, "held")
	node := as(own, "now")
	if err := node.Cordon(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !w.cordoned(t) {
		t.Error("the node is not cordoned")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	err := node.Drain(ctx, say)
	if err == nil || !strings.Contains(err.Error(), "1 pods to end: default/held (The disruption budget held needs 1 healthy pods") {
		t.Errorf("Drain = %v, want it to name the pod and its budget", err)
	}
	if left := w.pods(t); !slices.Equal(left, []string{"elsewhere", "held"}) {
		t.Errorf("pods left: %v, want free to be gone", left)
	}
	// A budget that lets go while the drain waits is enough.
	if err := admin.Resource(gvr("policy", "v1", "poddisruptionbudgets")).Namespace("default").Delete(t.Context(), "held", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := node.Drain(ctx, say); err != nil {
		t.Error(err)
	}
	if left := w.pods(t); !slices.Equal(left, []string{"elsewhere"}) {
		t.Errorf("pods left: %v, want only the other node's", left)
	}
	w.strangers(t, own)
	w.uncordons(t, node)
}

// strangers: with a node's credentials nothing can be done to another node.
func (w *world) strangers(t *testing.T, own *api.Client) {
	other := &drain.Node{Boot: "now", Connect: func(context.Context) (*api.Client, string, error) { return own, "node-2", nil }}
	if err := other.Cordon(t.Context()); !apierrors.IsForbidden(err) {
		t.Errorf("cordon another node = %v, want it forbidden", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := other.Drain(ctx, func(string) {}); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("drain another node = %v, want it forbidden", err)
	}
}

// uncordons: the controller leaves alone what this boot has cordoned and what
// somebody else has, and takes back what an earlier boot did.
func (w *world) uncordons(t *testing.T, node *drain.Node) {
	if err := w.Create(t.Context(), k8s.NewKubeletStatus("kubelet")); err != nil {
		t.Fatal(err)
	}
	w.annotate(t, map[string]any{"example.com/seen": "1"}) // the controller looks again
	if st := w.labelled(t, "1"); !st.Unschedulable {
		t.Error("the cordon of this boot was taken back")
	}
	w.annotate(t, map[string]any{drain.Mark: "before"})
	await(t, w, k8s.NewNodeStatus(nodeName), func(r *k8s.NodeStatus) bool { return !r.TypedSpec().Unschedulable })
	if err := errors.Join(node.Cordon(t.Context()), node.Uncordon(t.Context())); err != nil {
		t.Fatal(err)
	}
	if w.cordoned(t) {
		t.Error("Uncordon did not take Cordon back")
	}
	w.patchNode(t, map[string]any{"spec": map[string]any{"unschedulable": true}}) // an administrator does
	if err := errors.Join(node.Cordon(t.Context()), node.Uncordon(t.Context())); err != nil {
		t.Fatal(err)
	}
	w.annotate(t, map[string]any{"example.com/seen": "2"})
	if st := w.labelled(t, "2"); !st.Unschedulable {
		t.Error("the administrator's cordon was taken back")
	}
	w.patchNode(t, map[string]any{"spec": map[string]any{"unschedulable": nil}})
}

// labelled waits until the controller has seen an annotation.
func (w *world) labelled(t *testing.T, value string) k8s.NodeStatusSpec {
	return *await(t, w, k8s.NewNodeStatus(nodeName), func(r *k8s.NodeStatus) bool {
		return r.TypedSpec().Annotations["example.com/seen"] == value
	}).TypedSpec()
}

func (w *world) annotate(t *testing.T, annotations map[string]any) {
	w.patchNode(t, map[string]any{"metadata": map[string]any{"annotations": annotations}})
}

func (w *world) patchNode(t *testing.T, patch map[string]any) {
	data, err := json.Marshal(patch)
	if err == nil {
		_, err = w.admin(t).Resource(gvr("", "v1", "nodes")).Patch(t.Context(), nodeName, types.MergePatchType, data, metav1.PatchOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) cordoned(t *testing.T) bool {
	node, err := w.admin(t).Resource(gvr("", "v1", "nodes")).Get(t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	on, _, _ := unstructured.NestedBool(node.Object, "spec", "unschedulable")
	return on
}

func (w *world) pods(t *testing.T) []string {
	list, err := w.admin(t).Resource(gvr("", "v1", "pods")).Namespace("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range list.Items {
		names = append(names, p.GetName())
	}
	slices.Sort(names)
	return names
}

func (w *world) secondNode(t *testing.T) {
	_, err := w.admin(t).Resource(gvr("", "v1", "nodes")).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "node-2"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// pod makes a running pod on a node; without a kubelet it ends when it is asked to.
func (w *world) pod(t *testing.T, name, node string) {
	pods := w.admin(t).Resource(gvr("", "v1", "pods")).Namespace("default")
	pod := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name, "labels": map[string]any{"app": name}},
		"spec": map[string]any{
			"nodeName": node, "terminationGracePeriodSeconds": int64(0),
			"tolerations": []any{map[string]any{"operator": "Exists"}},
			"containers":  []any{map[string]any{"name": "x", "image": "x"}},
		},
	}}
	eventually(t, "pod "+name, func() error {
		_, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
		return err
	})
	eventually(t, "status of pod "+name, func() error {
		cur, err := pods.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		cur.Object["status"] = map[string]any{"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}
		_, err = pods.UpdateStatus(t.Context(), cur, metav1.UpdateOptions{})
		return err
	})
}

// budget lets no pod of an app be evicted.
func (w *world) budget(t *testing.T, app string) {
	budgets := w.admin(t).Resource(gvr("policy", "v1", "poddisruptionbudgets")).Namespace("default")
	_, err := budgets.Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": map[string]any{"name": app},
		"spec": map[string]any{"minAvailable": int64(1), "selector": map[string]any{"matchLabels": map[string]any{"app": app}}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the budget counts", func() error {
		b, err := budgets.Get(t.Context(), app, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if healthy, _, _ := unstructured.NestedInt64(b.Object, "status", "currentHealthy"); healthy != 1 {
			return fmt.Errorf("%d are healthy", healthy)
		}
		return nil
	})
}
