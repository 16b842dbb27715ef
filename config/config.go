// Package config is the machine configuration: its types, decoding, defaults,
// validation, patches, differences, generation and secrets.
//
// Load reads a document, Generate makes one. A document is read whole or not
// at all: Load reports every problem of it at once, each with file, line and
// key. What becomes of every key is written in the table of keys.go. The
// package makes no operating system calls; a Config that nobody changes is
// safe for concurrent use.
package config

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Version is the version of the manifest's format.
const Version = "v1alpha1"

// The machine types.
const (
	TypeControlPlane = "controlplane"
	TypeWorker       = "worker"
)

// Base64 is binary content, base64 in YAML: certificates and keys are PEM
// inside it. It never shows in logs.
type Base64 []byte

// MarshalYAML encodes. What Redact left is shown as it is.
func (b Base64) MarshalYAML() (any, error) {
	if bytes.HasPrefix(b, []byte(Redacted)) {
		return string(b), nil
	}
	return base64.StdEncoding.EncodeToString(b), nil
}

// UnmarshalYAML decodes. Line breaks and blanks inside are accepted.
func (b *Base64) UnmarshalYAML(node *yaml.Node) error {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(node.Value), ""))
	if err != nil {
		return fmt.Errorf("line %d: not base64", node.Line)
	}
	*b = raw
	return nil
}

// LogValue redacts.
func (b Base64) LogValue() slog.Value { return slog.StringValue(Redacted) }

// String redacts.
func (b Base64) String() string { return Redacted }

// CertificateAndKey is an authority or an identity: its certificate and, where
// it may issue, its key. Workers carry authorities without the key.
type CertificateAndKey struct {
	Crt Base64 `yaml:"crt"`
	Key Base64 `yaml:"key"`
}

// Certificate is a certificate alone.
type Certificate struct {
	Crt Base64 `yaml:"crt"`
}

// Key is a private key alone.
type Key struct {
	Key Base64 `yaml:"key"`
}

// Duration is a time span in Go's notation, such as 1h30m.
type Duration time.Duration

// MarshalYAML shows Go's notation.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// UnmarshalYAML reads Go's notation.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	v, err := time.ParseDuration(node.Value)
	if err != nil {
		return fmt.Errorf("line %d: not a duration such as 1m30s", node.Line)
	}
	*d = Duration(v)
	return nil
}

// FileMode is a set of permission bits, written in octal (0o644).
type FileMode uint32

// MarshalYAML shows octal, as a number.
func (m FileMode) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprintf("0o%03o", uint32(m))}, nil
}

// UnmarshalYAML reads 0o644, 0644 or 420.
func (m *FileMode) UnmarshalYAML(node *yaml.Node) error {
	v, err := strconv.ParseUint(node.Value, 0, 32)
	if err != nil || v > 0o7777 {
		return fmt.Errorf("line %d: not a file mode such as 0o644", node.Line)
	}
	*m = FileMode(v)
	return nil
}

// Bytes is the configuration as a YAML document, keys in the order of the
// types, without what is not set.
func (c *Config) Bytes() ([]byte, error) {
	var buf bytes.Buffer
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(4)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encode machine configuration: %w", err)
	}
	return buf.Bytes(), nil
}

// Bool is the value of an optional boolean, or its default.
func Bool(v *bool, unset bool) bool {
	if v == nil {
		return unset
	}
	return *v
}
