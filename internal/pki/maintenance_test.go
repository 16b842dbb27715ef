package pki

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func TestMaintenanceCertificate(t *testing.T) {
	now := time.Date(1970, 1, 1, 0, 0, 10, 0, time.UTC) // a clock without a battery
	first, err := NewMaintenance(now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TLS(first); err != nil {
		t.Errorf("certificate and key do not belong together: %v", err)
	}
	c, err := ParseCertificate(first.Crt)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	if c.NotBefore.After(now) || c.NotAfter.Before(later) {
		t.Errorf("valid from %v to %v, want from before %v to after %v", c.NotBefore, c.NotAfter, now, later)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil || !Maintenance(c) {
		t.Errorf("signature %v, Maintenance = %v, want a self-signed certificate that says what it is", err, Maintenance(c))
	}
	if c.IsCA || len(c.DNSNames)+len(c.IPAddresses) > 0 {
		t.Errorf("CA %v, names %v, addresses %v, want neither", c.IsCA, c.DNSNames, c.IPAddresses)
	}
	second, err := NewMaintenance(now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ParseCertificate(second.Crt)
	if err != nil {
		t.Fatal(err)
	}
	if KeyFingerprint(c) == KeyFingerprint(other) {
		t.Error("two certificates have one key")
	}
	ca, err := NewCA(Ed25519, Subject{CommonName: "talos"}, now)
	if err != nil {
		t.Fatal(err)
	}
	if authority, err := ParseCertificate(ca.Crt); err != nil || Maintenance(authority) {
		t.Errorf("Maintenance of an authority = true (%v)", err)
	}
}

func TestParseFingerprint(t *testing.T) {
	sum := sha256.Sum256([]byte("key"))
	want := Fingerprint(sum)
	plain := hex.EncodeToString(sum[:])
	var colons []string
	for i := 0; i < len(plain); i += 2 {
		colons = append(colons, strings.ToUpper(plain[i:i+2]))
	}
	for _, text := range []string{want.String(), base64.RawStdEncoding.EncodeToString(sum[:]), plain, strings.ToUpper(plain), strings.Join(colons, ":")} {
		if got, err := ParseFingerprint(text); err != nil || got != want {
			t.Errorf("ParseFingerprint(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "=", "abc", plain[:62], plain + "00", want.String()[:40], "sha256:" + plain, strings.Repeat("é", 32)} {
		if got, err := ParseFingerprint(text); err == nil {
			t.Errorf("ParseFingerprint(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseFingerprint(f *testing.F) {
	f.Add("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
	f.Add("e3:b0:c4:42:98:fc:1c:14:9a:fb:f4:c8:99:6f:b9:24:27:ae:41:e4:64:9b:93:4c:a4:95:99:1b:78:52:b8:55")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseFingerprint(text)
		if err != nil {
			return
		}
		if again, err := ParseFingerprint(got.String()); err != nil || again != got {
			t.Errorf("ParseFingerprint(%q) = %v, read again %v, %v", text, got, again, err)
		}
	})
}
