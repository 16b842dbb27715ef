package drain

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

func pod(name string, edit func(meta map[string]any)) unstructured.Unstructured {
	meta := map[string]any{"name": name, "namespace": "default", "uid": name}
	if edit != nil {
		edit(meta)
	}
	return unstructured.Unstructured{Object: map[string]any{"metadata": meta, "status": map[string]any{"phase": "Running"}}}
}

func TestMovable(t *testing.T) {
	owner := func(kind string, controller bool) func(map[string]any) {
		return func(meta map[string]any) {
			meta["ownerReferences"] = []any{map[string]any{"kind": kind, "name": "o", "controller": controller}}
		}
	}
	over := pod("over", nil)
	over.Object["status"] = map[string]any{"phase": "Succeeded"}
	all := []unstructured.Unstructured{
		pod("web", owner("ReplicaSet", true)), pod("agent", owner("DaemonSet", true)), pod("friend", owner("DaemonSet", false)), over, pod("alone", nil),
		pod("static", func(meta map[string]any) { meta["annotations"] = map[string]any{mirrorAnnotation: "x"} }),
		pod("going", func(meta map[string]any) { meta["deletionTimestamp"] = "2026-01-01T00:00:00Z" }),
	}
	want := []Pod{{"default", "alone", "alone", false}, {"default", "friend", "friend", false}, {"default", "going", "going", true}, {"default", "web", "web", false}}
	if diff := cmp.Diff(want, Movable(all)); diff != "" {
		t.Errorf("Movable (-want +got):\n%s", diff)
	}
}

func TestCordonAndBack(t *testing.T) {
	node := func(unschedulable bool, mark string) *unstructured.Unstructured {
		obj := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"unschedulable": unschedulable}}}
		if mark != "" {
			obj.SetAnnotations(map[string]string{Mark: mark})
		}
		return obj
	}
	for _, tt := range []struct {
		name             string
		node             *unstructured.Unstructured
		cordon, uncordon bool
	}{
		{"in service", node(false, ""), true, false},
		{"by an administrator", node(true, ""), false, false},
		{"by this boot", node(true, "now"), false, false},
		{"by an earlier boot", node(true, "before"), true, true},
		{"uncordoned by an administrator", node(false, "before"), true, true},
	} {
		if got := CordonPatch(tt.node, "now") != nil; got != tt.cordon {
			t.Errorf("%s: cordon = %t, want %t", tt.name, got, tt.cordon)
		}
		if got := UncordonPatch(tt.node, "now") != nil; got != tt.uncordon {
			t.Errorf("%s: uncordon = %t, want %t", tt.name, got, tt.uncordon)
		}
	}
}

func TestDescribe(t *testing.T) {
	e := eviction{reasons: map[types.UID]string{"c": "a budget", "a": ""}}
	left := []Pod{{"d", "a", "a", true}, {"d", "b", "b", false}, {"d", "c", "c", false}, {"d", "e", "e", false}}
	if got, want := e.describe(left), "4 pods to end: d/c (a budget), d/a, d/b, and 1 more"; got != want {
		t.Errorf("describe = %q, want %q", got, want)
	}
}
