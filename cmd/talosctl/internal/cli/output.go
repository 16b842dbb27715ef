package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// Format is how data is printed.
type Format string

// The formats. A document is what one node said, or one resource: JSON prints
// one object after the other, YAML separates them by a line of ---.
const (
	TableFormat Format = "table"
	JSONFormat  Format = "json"
	YAMLFormat  Format = "yaml"
)

type formatFlag struct{ f *Format }

func (v formatFlag) String() string { return string(*v.f) }
func (v formatFlag) Type() string   { return "format" }
func (v formatFlag) Set(s string) error {
	if !slices.Contains([]Format{TableFormat, JSONFormat, YAMLFormat}, Format(s)) {
		return fmt.Errorf("%q is none of table, json, yaml", s)
	}
	*v.f = Format(s)
	return nil
}

var _ pflag.Value = formatFlag{}

// OutputFlag gives cmd a flag -o.
func OutputFlag(cmd *cobra.Command) *Format {
	f := TableFormat
	cmd.Flags().VarP(formatFlag{&f}, "output", "o", "table, json or yaml")
	// The flag exists, so this can't go wrong.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return &f
}

// Field is one key of a Doc.
type Field struct {
	Key   string
	Value any
}

// Doc is an object whose keys keep their order.
type Doc []Field

// MarshalJSON keeps the order.
func (d Doc) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range d {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(f.Key)
		if err != nil {
			return nil, err
		}
		value, err := marshalPlain(f.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Key, err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshalPlain leaves <, > and & as they are.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// MarshalYAML keeps the order.
func (d Doc) MarshalYAML() (any, error) {
	node := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range d {
		var key, value yaml.Node
		if err := key.Encode(f.Key); err != nil {
			return nil, err
		}
		if err := value.Encode(f.Value); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Key, err)
		}
		node.Content = append(node.Content, &key, &value)
	}
	return node, nil
}

// Printer writes documents one after the other.
type Printer struct {
	w      io.Writer
	format Format
	count  int
}

// NewPrinter prints to w as JSON or YAML.
func NewPrinter(w io.Writer, format Format) *Printer { return &Printer{w: w, format: format} }

// Print writes one document.
func (p *Printer) Print(doc any) error {
	var b bytes.Buffer
	if p.format == JSONFormat {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(doc); err != nil {
			return err
		}
	} else {
		if p.count > 0 {
			b.WriteString("---\n")
		}
		enc := yaml.NewEncoder(&b)
		enc.SetIndent(2)
		if err := enc.Encode(doc); err != nil {
			return err
		}
	}
	p.count++
	_, err := p.w.Write(b.Bytes())
	return err
}

// PrintDocs writes documents in JSON or YAML.
func (a *App) PrintDocs(format Format, docs ...any) error {
	p := NewPrinter(a.Out, format)
	for _, doc := range docs {
		if err := p.Print(doc); err != nil {
			return err
		}
	}
	return nil
}
