// Package pem holds PEM-encoded certificates and keys as resources and the
// machine configuration carry them. Keys never show in logs: String and
// LogValue redact.
package pem

import "log/slog"

// CertificateAndKey is a certificate with its private key, both PEM. A worker
// has a CA's certificate without its key.
type CertificateAndKey struct {
	Crt []byte `yaml:"crt" protobuf:"1"`
	Key []byte `yaml:"key" protobuf:"2"`
}

// Certificate is a certificate alone, PEM.
type Certificate struct {
	Crt []byte `yaml:"crt" protobuf:"1"`
}

// Key is a private key alone, PEM.
type Key struct {
	Key []byte `yaml:"key" protobuf:"1"`
}

const redacted = "[redacted]"

// String hides the key.
func (CertificateAndKey) String() string { return redacted }

// LogValue hides the key.
func (CertificateAndKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// String hides the key.
func (Key) String() string { return redacted }

// LogValue hides the key.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }
