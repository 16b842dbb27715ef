package drain

import (
	"slices"
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
	want := []Pod{
		{Namespace: "default", Name: "alone", UID: "alone"}, {Namespace: "default", Name: "friend", UID: "friend"},
		{Namespace: "default", Name: "going", UID: "going", Ending: true}, {Namespace: "default", Name: "web", UID: "web"},
	}
	if diff := cmp.Diff(want, Movable(all)); diff != "" {
		t.Errorf("Movable (-want +got):\n%s", diff)
	}
}

// tolerant is a pod with a toleration.
func tolerant(name string, toleration map[string]any) unstructured.Unstructured {
	p := pod(name, nil)
	p.Object["spec"] = map[string]any{"tolerations": []any{toleration}}
	return p
}

func TestToleratesCordon(t *testing.T) {
	const cordon = "node.kubernetes.io/unschedulable"
	for _, tt := range []struct {
		toleration map[string]any
		want       bool
	}{
		{map[string]any{"operator": "Exists"}, true},
		{map[string]any{"operator": "Exists", "effect": "NoSchedule"}, true},
		{map[string]any{"operator": "Exists", "effect": "NoExecute"}, false},
		{map[string]any{"key": cordon, "operator": "Exists"}, true},
		{map[string]any{"key": cordon, "operator": "Exists", "effect": "NoExecute"}, false},
		{map[string]any{"key": cordon, "operator": "Equal", "value": ""}, true},
		{map[string]any{"key": cordon, "value": "x"}, false},
		{map[string]any{"key": cordon}, true}, // Equal, to nothing
		{map[string]any{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}, false},
		{map[string]any{"key": ""}, false},
	} {
		if got := toleratesCordon(tolerant("p", tt.toleration)); got != tt.want {
			t.Errorf("toleratesCordon with %v = %t, want %t", tt.toleration, got, tt.want)
		}
	}
	if toleratesCordon(pod("plain", nil)) {
		t.Error("a pod without tolerations tolerates a cordon")
	}
}

// TestComesBack: a drain ends although a pod comes again each time that it is
// evicted; one that was on its way here before the cordon is evicted all the same.
func TestComesBack(t *testing.T) {
	everything := map[string]any{"operator": "Exists"}
	e := eviction{reasons: map[types.UID]string{}}
	for _, step := range []struct {
		list []unstructured.Unstructured
		want []string
		back int
	}{
		{[]unstructured.Unstructured{tolerant("web-1", everything), pod("db-1", nil)}, []string{"db-1", "web-1"}, 0},
		{[]unstructured.Unstructured{tolerant("web-1", everything), tolerant("web-2", everything), pod("late", nil)}, []string{"late", "web-1"}, 1},
		{[]unstructured.Unstructured{tolerant("web-2", everything)}, nil, 1},
		{nil, nil, 0},
	} {
		var got []string
		for _, p := range e.left(step.list) {
			got = append(got, p.Name)
		}
		if !slices.Equal(got, step.want) || e.back != step.back {
			t.Errorf("left are %q, and %d came back; want %q and %d", got, e.back, step.want, step.back)
		}
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
	var left []Pod
	for _, name := range []string{"a", "b", "c", "e"} {
		left = append(left, Pod{Namespace: "d", Name: name, UID: types.UID(name), Ending: name == "a"})
	}
	if got, want := e.describe(left), "4 pods to end: d/c (a budget), d/a, d/b, and 1 more"; got != want {
		t.Errorf("describe = %q, want %q", got, want)
	}
}
