package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Names of the firmware's variables, as the kernel has them in efivarfs.
const (
	StateVariable    = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c" // 1 while it is enforced
	DatabaseVariable = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"
)

// certSHA256 marks lists of digests of programs.
var certSHA256 = newGUID([16]byte{0xc1, 0xc4, 0x16, 0x26, 0x50, 0x4c, 0x40, 0x92, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28})

// Database is what a firmware starts: its variable db.
type Database struct {
	Certificates []*x509.Certificate
	Digests      [][]byte // SHA-256, of programs that need no signature
}

// ParseDatabase reads the variable's value, one EFI_SIGNATURE_LIST after the
// other. Lists of kinds that admit nothing here are left out, and so are
// certificates that can't be read: firmwares don't agree with x509 on all.
func ParseDatabase(b []byte) (Database, error) {
	const header = 28
	var d Database
	for len(b) > 0 {
		if len(b) < header {
			return Database{}, errors.New("a list of keys that ends early")
		}
		kind := b[:16]
		size, skip, each := int(binary.LittleEndian.Uint32(b[16:])), int(binary.LittleEndian.Uint32(b[20:])), int(binary.LittleEndian.Uint32(b[24:]))
		if size < header || size > len(b) || skip > size-header || each <= len(guid{}) || (size-header-skip)%each != 0 {
			return Database{}, errors.New("a list of keys whose sizes contradict each other")
		}
		for items := b[header+skip : size]; len(items) > 0; items = items[each:] {
			item := items[len(guid{}):each] // behind its owner
			switch {
			case bytes.Equal(kind, certX509[:]):
				if c, err := x509.ParseCertificate(item); err == nil {
					d.Certificates = append(d.Certificates, c)
				}
			case bytes.Equal(kind, certSHA256[:]):
				d.Digests = append(d.Digests, bytes.Clone(item))
			}
		}
		b = b[size:]
	}
	return d, nil
}

// Admits says by what of the database a firmware starts a program of that size:
// the name of the certificate that signed it, or that admitted the one that did,
// or its digest. The error says why by nothing.
func (d Database) Admits(r io.ReaderAt, size int64) (by string, err error) {
	entries, sum, err := signatures(r, size)
	if err != nil {
		return "", err
	}
	for _, known := range d.Digests {
		if bytes.Equal(known, sum) {
			return fmt.Sprintf("digest %x", sum), nil
		}
	}
	if len(entries) == 0 {
		return "", errors.New("it has no signature")
	}
	var why []error
	for _, e := range entries {
		for _, c := range d.Certificates {
			if verifyEntry(e, sum, c) == nil {
				return c.Subject.CommonName, nil
			}
		}
		signer, err := signerOf(e, sum)
		if err != nil {
			why = append(why, err)
			continue
		}
		for _, c := range d.Certificates {
			if c.CheckSignature(signer.SignatureAlgorithm, signer.RawTBSCertificate, signer.Signature) == nil {
				return c.Subject.CommonName, nil
			}
		}
		why = append(why, fmt.Errorf("it is signed by %s, which the firmware does not trust", signer.Subject.CommonName))
	}
	return "", errors.Join(why...)
}
