package api

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

var coreV1 = schema.GroupVersion{Version: "v1"}

// mapper knows which resource serves a kind.
type mapper struct {
	rest rest.Interface

	mu    sync.Mutex // guards kinds
	kinds map[schema.GroupVersionKind]target
}

type target struct {
	resource   schema.GroupVersionResource
	namespaced bool
}

// find looks a kind up; the list of its group is read anew when the kind is
// not in it, because a CRD may have been added since.
func (m *mapper) find(ctx context.Context, kind schema.GroupVersionKind) (target, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t, ok := m.kinds[kind]; ok {
		return t, nil
	}
	gv := kind.GroupVersion()
	path := "/apis/" + gv.String()
	if gv.Group == "" {
		path = "/api/" + gv.Version
	}
	raw, err := m.rest.Get().AbsPath(path).DoRaw(ctx)
	if err != nil {
		return target{}, fmt.Errorf("list resources of %s: %w", gv, err)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(raw, &list); err != nil {
		return target{}, fmt.Errorf("decode resources of %s: %w", gv, err)
	}
	if m.kinds == nil {
		m.kinds = map[schema.GroupVersionKind]target{}
	}
	for _, r := range list.APIResources {
		k := gv.WithKind(r.Kind)
		if _, seen := m.kinds[k]; seen || isSubresource(r.Name) {
			continue
		}
		m.kinds[k] = target{resource: gv.WithResource(r.Name), namespaced: r.Namespaced}
	}
	t, ok := m.kinds[kind]
	if !ok {
		return target{}, fmt.Errorf("the API serves no kind %s in %s", kind.Kind, gv)
	}
	return t, nil
}

func isSubresource(name string) bool {
	for _, c := range name {
		if c == '/' {
			return true
		}
	}
	return false
}

// For is the resource that holds obj; a namespaced object without a namespace
// is in "default".
func (c *Client) For(ctx context.Context, obj *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	t, err := c.mapper.find(ctx, obj.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if !t.namespaced {
		return c.Resource(t.resource), nil
	}
	ns := obj.GetNamespace()
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	return c.Resource(t.resource).Namespace(ns), nil
}
