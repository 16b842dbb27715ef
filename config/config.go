// Package config is the machine configuration: its types, decoding, defaults,
// validation, generation and secrets. It makes no operating system calls.
package config

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"

	"go.yaml.in/yaml/v3"
)

// Base64 is binary content, base64 in YAML: certificates and keys are PEM
// inside it. It never shows in logs.
type Base64 []byte

// MarshalYAML encodes.
func (b Base64) MarshalYAML() (any, error) { return base64.StdEncoding.EncodeToString(b), nil }

// UnmarshalYAML decodes.
func (b *Base64) UnmarshalYAML(node *yaml.Node) error {
	raw, err := base64.StdEncoding.DecodeString(node.Value)
	if err != nil {
		return fmt.Errorf("line %d: not base64", node.Line)
	}
	*b = raw
	return nil
}

// LogValue redacts.
func (b Base64) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// CertificateAndKey is a CA: its certificate and, on control plane nodes, its key.
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
