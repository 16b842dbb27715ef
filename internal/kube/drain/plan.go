package drain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// mirrorAnnotation is on the API's picture of a static pod.
const mirrorAnnotation = "kubernetes.io/config.mirror"

// Pod is a pod that a drain moves away.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Ending          bool // it was asked to end already
	Returns         bool // it tolerates a cordon: where it is evicted another like it may come
}

// Movable are the pods that a drain asks to go and waits for: not static ones
// and not those of a DaemonSet, which would come back here, nor those that have
// ended.
func Movable(all []unstructured.Unstructured) []Pod {
	var out []Pod
	for _, p := range all {
		phase, _, _ := unstructured.NestedString(p.Object, "status", "phase")
		_, mirror := p.GetAnnotations()[mirrorAnnotation]
		if mirror || ofDaemonSet(p) || phase == "Succeeded" || phase == "Failed" {
			continue
		}
		out = append(out, Pod{Namespace: p.GetNamespace(), Name: p.GetName(), UID: p.GetUID(), Ending: p.GetDeletionTimestamp() != nil, Returns: toleratesCordon(p)})
	}
	slices.SortFunc(out, func(a, b Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func ofDaemonSet(p unstructured.Unstructured) bool {
	return slices.ContainsFunc(p.GetOwnerReferences(), func(o metav1.OwnerReference) bool {
		return o.Kind == "DaemonSet" && o.Controller != nil && *o.Controller
	})
}

// toleratesCordon says whether a pod may come to a node though it is cordoned: it
// tolerates the taint that Kubernetes gives such a node.
func toleratesCordon(p unstructured.Unstructured) bool {
	list, _, _ := unstructured.NestedSlice(p.Object, "spec", "tolerations")
	return slices.ContainsFunc(list, func(t any) bool {
		of, _ := t.(map[string]any)
		exists := of["operator"] == "Exists"
		switch effect, _ := of["effect"].(string); effect {
		case "", "NoSchedule":
		default:
			return false
		}
		switch key, _ := of["key"].(string); key {
		case "":
			return exists
		case "node.kubernetes.io/unschedulable": // its value is empty
			value, _ := of["value"].(string)
			return exists || value == ""
		}
		return false
	})
}

// left are the pods of a list that are to go. What came after the drain began and
// tolerates the cordon would come again, for as long as it is evicted.
func (e *eviction) left(list []unstructured.Unstructured) []Pod {
	all := Movable(list)
	if e.first == nil {
		e.first = map[types.UID]bool{}
		for _, p := range all {
			e.first[p.UID] = true
		}
	}
	came := func(p Pod) bool { return p.Returns && !e.first[p.UID] }
	out := slices.DeleteFunc(slices.Clone(all), came)
	e.back = len(all) - len(out)
	return out
}

// CordonPatch is the merge patch that cordons a Node and marks it with the boot;
// nil where somebody else has cordoned it, or this boot has.
func CordonPatch(node *unstructured.Unstructured, boot string) map[string]any {
	unschedulable, _, _ := unstructured.NestedBool(node.Object, "spec", "unschedulable")
	mark, own := node.GetAnnotations()[Mark]
	if unschedulable && (!own || mark == boot) {
		return nil
	}
	return map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{Mark: boot}},
		"spec":     map[string]any{"unschedulable": true},
	}
}

// UncordonPatch is the merge patch that takes back the cordon of another boot
// than this; nil where there is none.
func UncordonPatch(node *unstructured.Unstructured, boot string) map[string]any {
	if mark, own := node.GetAnnotations()[Mark]; !own || mark == boot {
		return nil
	}
	return uncordon()
}

func uncordon() map[string]any {
	return map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{Mark: nil}},
		"spec":     map[string]any{"unschedulable": nil},
	}
}

const named = 3 // so many pods are named while a drain waits

// describe names the pods that are left, those first that can't be evicted.
func (e *eviction) describe(left []Pod) string {
	var held, ending []string
	for _, p := range left {
		name := p.Namespace + "/" + p.Name
		if reason := e.reasons[p.UID]; reason != "" {
			held = append(held, name+" ("+reason+")")
			continue
		}
		ending = append(ending, name)
	}
	all := slices.Concat(held, ending)
	if len(all) > named {
		all = append(all[:named:named], fmt.Sprintf("and %d more", len(all)-named))
	}
	return fmt.Sprintf("%d pods to end: %s", len(left), strings.Join(all, ", "))
}
