package config

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxSize bounds a document, in bytes.
const MaxSize = 8 << 20

// Load reads the manifest, with the documents beside it, and checks it. name is what problems call the
// document, mostly its file. The error is Problems, all of them, in the order
// of the document; with an error there is no configuration.
func Load(name string, data []byte) (*Config, []Warning, error) {
	d := newDecoder(name)
	cfg := d.config(data)
	if len(d.problems) == 0 {
		d.validate(cfg)
	} else if cfg != nil {
		// What is there is checked too, so that the report is complete. Missing
		// values of keys that did not decode are reported once, as undecodable.
		d.rest(cfg)
	}
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, nil, d.problems
	}
	return cfg, d.warnings, nil
}

// rest validates and keeps only the problems of places that have none yet.
func (d *decoder) rest(cfg *Config) {
	first := d.problems
	d.problems = nil
	d.validate(cfg)
	for _, p := range d.problems {
		known := false
		for _, f := range first {
			known = known || f.Key == p.Key || below(p.Key, f.Key) || below(f.Key, p.Key)
		}
		if !known {
			first = append(first, p)
		}
	}
	d.problems = first
}

func below(k, parent string) bool {
	rest, ok := strings.CutPrefix(k, parent)
	return ok && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// config decodes the manifest, with the documents beside it merged in.
func (d *decoder) config(data []byte) *Config {
	manifest, documents := d.parse(data)
	switch {
	case len(d.problems) > 0:
		return nil
	case manifest == nil && len(documents) == 0:
		d.problem(nil, key{}, "an empty document", "a manifest with version, machine and cluster")
		return nil
	case manifest == nil:
		d.problem(documents[0], key{}, "documents without a manifest",
			"a manifest beside them: machine.type, machine.token, machine.ca and cluster.token are said by no document")
		d.translate(&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, documents)
		return nil
	}
	if manifest = d.translate(manifest, documents); manifest == nil {
		return nil
	}
	cfg := &Config{}
	d.decode(manifest, reflect.ValueOf(cfg).Elem(), key{})
	return cfg
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax reports what the YAML parser cannot read; it gives a line at most.
func (d *decoder) syntax(err error) {
	text, line := err.Error(), 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		line, _ = strconv.Atoi(m[1]) // no line: 0
	}
	p := Problem{Position: Position{File: d.file}, Got: "is not YAML: " + text}
	if line > 0 {
		p.Line, p.Column = line, 1
	}
	d.problems = append(d.problems, p)
}

// lookup is the text of a key of a mapping.
func lookup(n *yaml.Node, name string) string {
	if n.Kind != yaml.MappingNode {
		return ""
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1].Value
		}
	}
	return ""
}
