package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// maintenanceName is the common name of the certificate that a machine without
// configuration serves with. It proves nothing; it lets a caller who does not
// know the certificate's authority be told why there is none.
const maintenanceName = "talos maintenance mode"

// noEnd is what RFC 5280 (4.1.2.5) has for a certificate without an end: the
// clock of a machine that has just started may be decades off.
var noEnd = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// NewMaintenance makes the key and the self-signed certificate of a machine
// that has no authority yet. It names no host and no address: whoever wants to
// know the machine compares the fingerprint of its key.
func NewMaintenance(now time.Time) (Pair, error) {
	key, err := generate(ECDSAP256)
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: maintenanceName},
		NotBefore: now.Add(-Skew).UTC(), NotAfter: noEnd,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign own certificate: %w", err)
	}
	keyPEM, err := MarshalKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Crt: certificatePEM(der), Key: keyPEM}, nil
}

// Maintenance reports whether c says that it is of a machine in maintenance
// mode. Anybody can make such a certificate: it is good for a hint, no more.
func Maintenance(c *x509.Certificate) bool {
	return c.Subject.CommonName == maintenanceName && c.Issuer.CommonName == maintenanceName && !c.IsCA
}

// Fingerprint is the SHA-256 of a public key in the form that certificates hold
// it in (SubjectPublicKeyInfo).
type Fingerprint [sha256.Size]byte

// KeyFingerprint is that of a certificate's key.
func KeyFingerprint(c *x509.Certificate) Fingerprint {
	return sha256.Sum256(c.RawSubjectPublicKeyInfo)
}

// String is base64, as the console shows it.
func (f Fingerprint) String() string { return base64.StdEncoding.EncodeToString(f[:]) }

// ParseFingerprint reads base64, with or without padding, or hexadecimal, with
// or without colons.
func ParseFingerprint(text string) (Fingerprint, error) {
	var f Fingerprint
	plain := strings.ReplaceAll(text, ":", "")
	data, err := hex.DecodeString(plain)
	if err != nil || len(data) != len(f) {
		data, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	}
	if err != nil || len(data) != len(f) {
		return f, fmt.Errorf("fingerprint %q: got neither the base64 nor the hexadecimal form of a SHA-256", text)
	}
	return Fingerprint(data), nil
}
