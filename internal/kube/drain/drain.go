// Package drain takes this node out of Kubernetes's service before it goes
// down, and back after: it cordons the Node object and evicts the pods.
//
// It works with what the node has: the administrator's credentials on a control
// plane node, the kubelet's own on a worker, with which a node may cordon itself
// and evict the pods that are bound to it, and nothing else. A cordon is marked
// with the boot that made it, so that the next one takes back its own and never
// somebody else's. A Node is safe for concurrent use.
package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"talos/internal/kube/api"
)

// Mark is the annotation of a Node that this node cordoned by itself: the boot
// in which it did.
const Mark = "talos.dev/cordoned-in-boot"

var (
	nodes = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	pods  = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
)

// Pauses between two looks at the pods: short at first, as most end soon.
const (
	firstPause = 250 * time.Millisecond
	longPause  = 2 * time.Second
)

// Node drains one node.
type Node struct {
	// Connect returns a client and the node's name.
	Connect func(ctx context.Context) (*api.Client, string, error)
	// Boot tells this run of the node from others.
	Boot string
}

// Cordon keeps new pods away. A node without another beside it, and one that is
// cordoned already, are left as they are.
func (n *Node) Cordon(ctx context.Context) error {
	client, name, err := n.Connect(ctx)
	if err != nil {
		return fmt.Errorf("reach Kubernetes: %w", err)
	}
	if alone(ctx, client, name) {
		return nil
	}
	obj, err := client.Resource(nodes).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reach Kubernetes: %w", err)
	}
	patch := CordonPatch(obj, n.Boot)
	if patch == nil {
		return nil
	}
	return n.patch(ctx, client, name, patch)
}

// Uncordon takes this node's own cordon back, of whichever boot.
func (n *Node) Uncordon(ctx context.Context) error {
	client, name, err := n.Connect(ctx)
	if err != nil {
		return fmt.Errorf("reach Kubernetes: %w", err)
	}
	obj, err := client.Resource(nodes).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reach Kubernetes: %w", err)
	}
	if _, marked := obj.GetAnnotations()[Mark]; !marked {
		return nil
	}
	return n.patch(ctx, client, name, uncordon())
}

func (n *Node) patch(ctx context.Context, client *api.Client, name string, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode patch of node %s: %w", name, err)
	}
	_, err = client.Resource(nodes).Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{FieldManager: "talos"})
	if err != nil {
		return fmt.Errorf("patch node %s: %w", name, err)
	}
	return nil
}

// Drain evicts the pods and waits until they have gone; those stay that have come
// since although the node is cordoned. When ctx ends before,
// the error names those that are left, and why.
func (n *Node) Drain(ctx context.Context, say func(string)) error {
	client, name, err := n.Connect(ctx)
	if err != nil {
		return fmt.Errorf("reach Kubernetes: %w", err)
	}
	if alone(ctx, client, name) {
		say("no other node could take the pods: they stay here")
		return nil
	}
	e := eviction{client: client, reasons: map[types.UID]string{}}
	said := ""
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		left, err := e.pass(ctx, name)
		if err == nil && len(left) == 0 {
			if e.back > 0 {
				say(fmt.Sprintf("%d pods that tolerate the cordon have come since: they stay", e.back))
			}
			return nil
		}
		text := e.describe(left)
		if err != nil {
			text = err.Error()
		}
		if text != said && ctx.Err() == nil {
			said = text
			say("waiting for " + text)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if said == "" {
				said = "an answer of the Kubernetes API"
			}
			return fmt.Errorf("not in time, going on without; waited for %s", said)
		}
	}
}

// eviction remembers what became of the pods that were asked to go.
type eviction struct {
	client  *api.Client
	reasons map[types.UID]string // why a pod could not be evicted; "" when it was
	first   map[types.UID]bool   // those that were there when the drain began
	back    int                  // so many have come since that would come again
}

// pass asks every pod to go that was not asked yet and returns those that are
// there.
func (e *eviction) pass(ctx context.Context, node string) ([]Pod, error) {
	list, err := e.client.Resource(pods).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
	if err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w", node, err)
	}
	left := e.left(list.Items)
	for _, p := range left {
		if reason, asked := e.reasons[p.UID]; p.Ending || asked && reason == "" {
			continue
		}
		err := e.evict(ctx, p)
		switch {
		case err == nil, apierrors.IsNotFound(err):
			e.reasons[p.UID] = ""
		case apierrors.IsTooManyRequests(err):
			e.reasons[p.UID] = budget(err)
		default:
			e.reasons[p.UID] = err.Error()
		}
	}
	return left, nil
}

func (e *eviction) evict(ctx context.Context, p Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := e.client.Resource(pods).Namespace(p.Namespace).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "policy/v1", "kind": "Eviction",
		"metadata":      map[string]any{"name": p.Name, "namespace": p.Namespace},
		"deleteOptions": map[string]any{"preconditions": map[string]any{"uid": string(p.UID)}},
	}}, metav1.CreateOptions{}, "eviction")
	return err
}

// budget is what the API says of a disruption budget.
func budget(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if details := status.Status().Details; details != nil {
			for _, cause := range details.Causes {
				return cause.Message
			}
		}
	}
	return err.Error()
}

// alone says whether the cluster has no other node that takes pods. A worker may
// not ask; it is never alone.
func alone(ctx context.Context, client *api.Client, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	list, err := client.Resource(nodes).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false
	}
	for _, obj := range list.Items {
		unschedulable, _, _ := unstructured.NestedBool(obj.Object, "spec", "unschedulable")
		if obj.GetName() != name && !unschedulable {
			return false
		}
	}
	return len(list.Items) > 0
}

// Remove deletes the Node object of a node that leaves for good. A worker's
// credentials do not allow it.
func (n *Node) Remove(ctx context.Context) error {
	client, name, err := n.Connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = client.Resource(nodes).Delete(ctx, name, metav1.DeleteOptions{})
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("a worker may not delete it; an administrator can: kubectl delete node %s", name)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete node %s: %w", name, err)
	}
	return nil
}
