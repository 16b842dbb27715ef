package config

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestBulk: what would take a gigabyte is refused before it is a tree; as large
// a text of a few long values is not.
func TestBulk(t *testing.T) {
	manifest := strings.Repeat("        - {a: b, c: [d, e]} # \"\n", 200_000)
	for name, tt := range map[string]struct {
		text string
		want bool
	}{
		"a list":       {"machine: [" + strings.Repeat("a,", 4<<20-20) + "a]\n", true},
		"a mapping":    {"machine:\n" + strings.Repeat(" a: b\n", 1<<20), true},
		"manifests":    {"cluster:\n  inlineManifests:\n    - name: x\n      contents: |\n" + manifest + "    - name: y\n      contents: >-\n" + manifest[:1000], false},
		"items":        {"a:\n  - |\n" + manifest + "  - x\n", false},
		"no block":     {"a: [\nb: |\n" + manifest, true},
		"a quote":      {"a: \"\\\"\nb: |\n" + manifest, true},
		"digits":       {"a: |1\n" + manifest, true},
		"not deeper":   {"- a: |\n" + strings.Repeat(" - b\n", 200_000), true},
		"other ends":   {"a: |\n  x\u0085b: [" + strings.Repeat("a,", 1<<20) + "a]\n", true},
		"others too":   {"a: |\n  x\rb: [" + strings.Repeat("a,", 1<<20) + "a]\n", true},
		"with returns": {strings.ReplaceAll("a:\n  b: |\n"+manifest, "\n", "\r\n"), false},
		"too early":    {strings.Repeat("        - b\n", 200_000) + "a: |\n x\n", true},
	} {
		if got := bulky([]byte(tt.text), maxBulk); got != tt.want {
			t.Errorf("%s, %d bytes: bulky = %t, want %t", name, len(tt.text), got, tt.want)
		}
	}
	_, _, err := Load("configuration", []byte("machine: ["+strings.Repeat("a,", 4<<20-20)+"a]\n"))
	if err == nil || !strings.Contains(err.Error(), "want fewer keys and items") {
		t.Errorf("Load = %v", err)
	}
}

// FuzzBulk: what is taken for small is so, whatever it does to be taken for it.
func FuzzBulk(f *testing.F) {
	for _, text := range []string{
		"a: |\n  - [x,y]\nb: c\n", "- |\n - a\n - b\n- c: >-\n    d: [e,f]\n", "a: \"x\n\nb: |\n  [1,2,3,4,5,6,7]\n", "a: [\nb: |\n  1,2,3,4,5,6\n]\n",
		"? a\n: |\n  b: [c,d,e,f,g,h]\n", "a: 'x\nb: |\n  [1,2,3]\n'\n", "- - - |\n     [a,b]\n", "a: &x |\n  [1,2]\n", "a:\n- b: |\n  - c\n  - d\n", "# a: |\n  - b\n  - c\n  - d\n  - e\n",
		"a: |\n  x\u0085b: [c,d,e,f,g,h]\n", "a: |\n  x\rb: [c,d,e,f,g,h]\n", "a: b\n c: |\n  - d\n  - e\n  - f\n", "a: |\n\n \n  x\n- y\n- z\n", "--- |\n [a]\n", "a: |\r\n  [b,c,d]\r\n",
	} {
		f.Add(text)
	}
	const limit = 4
	f.Fuzz(func(t *testing.T, text string) {
		if bulky([]byte(text), limit) {
			return
		}
		dec := yaml.NewDecoder(strings.NewReader(text))
		nodes := 0
		for {
			var doc yaml.Node
			if dec.Decode(&doc) != nil {
				break
			}
			nodes += countNodes(&doc)
		}
		if most := 3*(limit+1) + 3; nodes > most {
			t.Errorf("%d nodes, more than %d, of\n%s", nodes, most, text)
		}
	})
}

func countNodes(n *yaml.Node) int {
	all := 1
	for _, c := range n.Content {
		all += countNodes(c)
	}
	return all
}
