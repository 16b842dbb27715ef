// Package secureboot makes the keys that a machine's firmware can be told to
// trust, signs programs for it, and checks such signatures.
//
// Three keys are a machine's: PK, the owner's, admits KEK, which admits db,
// whose certificate the firmware wants on all that it starts. A fourth, which
// firmwares don't know, signs lists of checksums.
//
// The package reads and writes files only where a folder of keys is concerned
// (keys.go). It prints nothing, private keys least of all. Its functions keep no
// state and are safe for concurrent use.
package secureboot

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf16"

	"github.com/foxboron/go-uefi/pkcs7"
	"golang.org/x/crypto/cryptobyte"
)

// Pair is a certificate with its private key.
type Pair struct {
	Key         crypto.Signer
	Certificate *x509.Certificate
}

// guid is a UUID as UEFI stores it: the first three fields in little endian.
type guid [16]byte

func newGUID(uuid [16]byte) guid {
	u := uuid
	return guid{u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]}
}

// UUIDs of the UEFI specification.
var (
	certX509       = newGUID([16]byte{0xa5, 0xc0, 0x59, 0xa1, 0x94, 0xe4, 0x4a, 0xa7, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72})
	certPKCS7      = newGUID([16]byte{0x4a, 0xaf, 0xd2, 0x9d, 0x68, 0xdf, 0x49, 0xee, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7})
	globalVariable = newGUID([16]byte{0x8b, 0xe4, 0xdf, 0x61, 0x93, 0xca, 0x11, 0xd2, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c})
	imageSecurity  = newGUID([16]byte{0xd7, 0x19, 0xb2, 0xcb, 0x3d, 0x3a, 0x45, 0x96, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f})
)

// variable is one of the firmware's lists of keys.
type variable struct {
	name   string
	vendor guid
}

// The variables, in the order in which they must be set: with PK the firmware
// leaves its setup mode.
var (
	db  = variable{"db", imageSecurity}
	kek = variable{"KEK", globalVariable}
	pk  = variable{"PK", globalVariable}
)

// attributes of these variables: non-volatile, for boot and run time, writes
// need a signature with a time.
const attributes = 0x1 | 0x2 | 0x4 | 0x20

// signatureList is an EFI_SIGNATURE_LIST for each certificate.
func signatureList(owner guid, certificates ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range certificates {
		const listHeader = 28
		b = append(b, certX509[:]...)
		b = binary.LittleEndian.AppendUint32(b, uint32(listHeader+len(owner)+len(c.Raw)))
		b = binary.LittleEndian.AppendUint32(b, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(owner)+len(c.Raw)))
		b = append(append(b, owner[:]...), c.Raw...)
	}
	return b
}

// enrolment is what a variable is set to by whoever has the key that admits it:
// EFI_VARIABLE_AUTHENTICATION_2 and the list behind it.
func enrolment(v variable, list []byte, by Pair, now time.Time) ([]byte, error) {
	stamp := efiTime(now)
	var signed bytes.Buffer
	for _, c := range utf16.Encode([]rune(v.name)) {
		signed.Write(binary.LittleEndian.AppendUint16(nil, c))
	}
	signed.Write(v.vendor[:])
	signed.Write(binary.LittleEndian.AppendUint32(nil, attributes))
	signed.Write(stamp)
	signed.Write(list)
	der, err := pkcs7.SignPKCS7(by.Key, by.Certificate, pkcs7.OIDData, signed.Bytes())
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", v.name, err)
	}
	wrapped := cryptobyte.String(der)
	_, signature, err := pkcs7.ParseContentInfo(&wrapped) // the firmware wants what is inside
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", v.name, err)
	}
	const header = 24
	b := binary.LittleEndian.AppendUint32(stamp, uint32(header+len(signature)))
	b = binary.LittleEndian.AppendUint16(b, entryRevision)
	b = binary.LittleEndian.AppendUint16(b, 0x0ef1) // WIN_CERT_TYPE_EFI_GUID
	b = append(b, certPKCS7[:]...)
	return append(append(b, signature...), list...), nil
}

// efiTime is an EFI_TIME, to the second as such writes want it.
func efiTime(t time.Time) []byte {
	t = t.UTC()
	b := binary.LittleEndian.AppendUint16(make([]byte, 0, 16), uint16(t.Year()))
	b = append(b, byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()))
	return append(b, make([]byte, 9)...)
}
