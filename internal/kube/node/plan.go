package node

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"talos/config"
)

// Annotations that list the keys which the machine configuration gave the Node,
// so that what leaves the configuration leaves the Node, and nothing else does.
const (
	ownedLabels      = "talos.dev/owned-labels"
	ownedAnnotations = "talos.dev/owned-annotations"
	ownedTaints      = "talos.dev/owned-taints"
)

// Taint is a taint of a Node.
type Taint struct {
	Key, Value, Effect string
}

// Wanted is what the Node should have.
type Wanted struct {
	Labels, Annotations map[string]string
	Taints              []Taint
}

// FromConfig is what the configuration, with its defaults, wants.
func FromConfig(cfg *config.Config) Wanted {
	machine := config.Of(cfg.Machine)
	w := Wanted{Labels: map[string]string{}, Annotations: maps.Clone(machine.NodeAnnotations)}
	if cfg.IsControlPlane() {
		w.Labels[roleLabel] = ""
		w.Labels[keepOutLabel] = ""
		if !cfg.SchedulableControlPlane() {
			w.Taints = append(w.Taints, Taint{Key: roleLabel, Effect: "NoSchedule"})
		} else {
			delete(w.Labels, keepOutLabel) // workloads run here, so their traffic may come here
		}
	}
	maps.Copy(w.Labels, machine.NodeLabels)
	for key, v := range machine.NodeTaints {
		t := ParseTaint(key, v)
		w.Taints = append(slices.DeleteFunc(w.Taints, func(o Taint) bool { return o.Key == key }), t)
	}
	slices.SortFunc(w.Taints, func(a, b Taint) int { return cmp.Compare(a.Key, b.Key) })
	return w
}

// ParseTaint reads "value:Effect" or "Effect".
func ParseTaint(key, text string) Taint {
	value, effect, ok := strings.Cut(text, ":")
	if !ok {
		value, effect = "", text
	}
	return Taint{Key: key, Value: value, Effect: effect}
}

// Plan is the merge patch that gives the node what is wanted and takes away
// what was given before and no longer is; nil: nothing to do. With taints false
// they are left alone: a worker's own credentials may not change them.
func Plan(node *unstructured.Unstructured, want Wanted, taints bool) map[string]any {
	annotations := node.GetAnnotations()
	meta := map[string]any{}
	labels := mapPatch(node.GetLabels(), want.Labels, owned(annotations, ownedLabels))
	notes := mapPatch(annotations, want.Annotations, owned(annotations, ownedAnnotations))
	note := func(key string, keys []string) {
		if text := list(keys); annotations[key] != text && (len(keys) > 0 || annotations[key] != "") {
			notes[key] = text
		}
	}
	note(ownedLabels, slices.Sorted(maps.Keys(want.Labels)))
	note(ownedAnnotations, slices.Sorted(maps.Keys(want.Annotations)))

	patch := map[string]any{}
	if taints {
		now, changed := mergeTaints(node, want.Taints, owned(annotations, ownedTaints))
		if changed {
			patch["spec"] = map[string]any{"taints": now}
			meta["resourceVersion"] = node.GetResourceVersion() // the list is replaced as a whole
		}
		var keys []string
		for _, t := range want.Taints {
			keys = append(keys, t.Key)
		}
		note(ownedTaints, keys)
	}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	if len(notes) > 0 {
		meta["annotations"] = notes
	}
	if len(meta) > 0 {
		patch["metadata"] = meta
	}
	if len(patch) == 0 {
		return nil
	}
	return patch
}

func mapPatch(have, want map[string]string, owned []string) map[string]any {
	patch := map[string]any{}
	for k, v := range want {
		if cur, ok := have[k]; !ok || cur != v {
			patch[k] = v
		}
	}
	for _, k := range owned {
		_, wanted := want[k]
		if _, there := have[k]; there && !wanted {
			patch[k] = nil
		}
	}
	return patch
}

// mergeTaints keeps every taint that is not ours, in its place.
func mergeTaints(node *unstructured.Unstructured, want []Taint, owned []string) (now []any, changed bool) {
	have, _, _ := unstructured.NestedSlice(node.Object, "spec", "taints")
	missing := map[string]Taint{}
	for _, t := range want {
		missing[t.Key] = t
	}
	now = []any{}
	for _, h := range have {
		t, _ := h.(map[string]any)
		key, _ := t["key"].(string)
		w, wanted := missing[key]
		switch {
		case wanted && t["effect"] == w.Effect:
			delete(missing, key)
			if value, _ := t["value"].(string); value != w.Value {
				changed = true
				t = w.object()
			}
			now = append(now, t)
		case slices.Contains(owned, key):
			changed = true
		default:
			now = append(now, t)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(missing)) {
		changed = true
		now = append(now, missing[key].object())
	}
	return now, changed
}

func (t Taint) object() map[string]any {
	out := map[string]any{"key": t.Key, "effect": t.Effect}
	if t.Value != "" {
		out["value"] = t.Value
	}
	return out
}

func owned(annotations map[string]string, key string) []string {
	var out []string
	// A list that somebody broke is an empty one: nothing is taken away then.
	_ = json.Unmarshal([]byte(annotations[key]), &out)
	return out
}

func list(keys []string) string {
	if keys == nil {
		keys = []string{}
	}
	out, _ := json.Marshal(keys) // strings always encode
	return string(out)
}
