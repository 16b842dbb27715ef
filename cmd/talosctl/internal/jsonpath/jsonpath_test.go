package jsonpath_test

import (
	"testing"

	"go.yaml.in/yaml/v3"

	"talos/cmd/talosctl/internal/jsonpath"
)

const document = `
name: n
ready: true
count: 3
empty:
list: [a, b, c]
map: {z: 1, y: 2}
status: {ready: false}
endpoints: [{host: h1, port: 1}, {host: h2, port: 2}]
conditions: [{type: Ready, status: "True"}, {type: Disk, status: "False"}]
dotted.key: d
`

func TestEval(t *testing.T) {
	var value any
	if err := yaml.Unmarshal([]byte(document), &value); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		`{.name}`:              "n",
		`{.ready}`:             "true",
		`{.count}`:             "3",
		`{.empty}`:             "",
		`{.missing}`:           "",
		`{.missing.below}`:     "",
		`{.status.ready}`:      "false",
		`{.list}`:              `["a","b","c"]`,
		`{.list[0]}`:           "a",
		`{.list[-1]}`:          "c",
		`{.list[7]}`:           "",
		`{.list[:]}`:           "a,b,c",
		`{.list[1:]}`:          "b,c",
		`{.list[:9]}`:          "a,b,c",
		`{.list[*]}`:           "a,b,c",
		`{.map}`:               `{"y":2,"z":1}`,
		`{.map[*]}`:            "2,1",
		`{.map['z']}`:          "1",
		`{.endpoints[*].host}`: "h1,h2",
		`{.conditions[?(@.type=="Ready")].status}`: "True",
		`{.conditions[?(@.type!="Ready")].status}`: "False",
		`{.conditions[?(@.nothing)].status}`:       "",
		`{.dotted\.key}`:                           "d",
		`{.name}/{.count}`:                         "n/3",
		`plain`:                                    "plain",
	} {
		p, err := jsonpath.Parse(path)
		if err != nil {
			t.Errorf("Parse(%s): %v", path, err)
			continue
		}
		if got := p.Eval(value); got != want {
			t.Errorf("%s = %q, want %q", path, got, want)
		}
	}
	scalar, err := jsonpath.Parse("{@}")
	if err != nil || scalar.Eval("x") != "x" {
		t.Errorf("{@} of a scalar: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, path := range []string{`{.a`, `{.a[}`, `{.a[x]}`, `{.a[1:y]}`, `{..}`, `{.a[-1:]}`} {
		if _, err := jsonpath.Parse(path); err == nil {
			t.Errorf("Parse(%s) accepted it", path)
		}
	}
}

func FuzzEval(f *testing.F) {
	for _, s := range []string{`{.a[?(@.b=="c")].d}`, `{.a[1:2]}`, `{@}`, `x{.a['b}']}y`} {
		f.Add(s)
	}
	var value any
	if err := yaml.Unmarshal([]byte(document), &value); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, path string) {
		if p, err := jsonpath.Parse(path); err == nil {
			p.Eval(value) // must not panic
		}
	})
}
