package secureboot

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/foxboron/go-uefi/pkcs7"
	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"

	"talos/internal/uki"
)

// Object identifiers of Microsoft's Authenticode.
var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidImageData    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
)

// Header of an entry in the table of certificates, WIN_CERTIFICATE.
const (
	entryHeader    = 8
	entryRevision  = 0x0200
	entrySigned    = 0x0002 // WIN_CERT_TYPE_PKCS_SIGNED_DATA
	maxTable       = 1 << 20
	tableAlignment = 8
)

// ErrNotSigned says that a program has no signature of the certificate.
var ErrNotSigned = errors.New("not signed by this certificate")

// Sign returns the program with a signature of the key added. What signatures
// it had are kept.
func Sign(program []byte, key Pair) ([]byte, error) {
	fields, err := uki.Signature(bytes.NewReader(program), int64(len(program)))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	body := pad(bytes.Clone(program[:fields.Table]))
	digest, err := digest(bytes.NewReader(body), fields, int64(len(body)))
	if err != nil {
		return nil, err
	}
	content, err := indirectData(digest)
	if err != nil {
		return nil, err
	}
	signature, err := pkcs7.SignPKCS7(key.Key, key.Certificate, oidIndirectData, content)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	entry := binary.LittleEndian.AppendUint32(nil, uint32(entryHeader+len(signature)))
	entry = binary.LittleEndian.AppendUint16(entry, entryRevision)
	entry = binary.LittleEndian.AppendUint16(entry, entrySigned)
	table := append(bytes.Clone(program[fields.Table:][:fields.TableSize]), pad(append(entry, signature...))...)

	binary.LittleEndian.PutUint32(body[fields.Directory:], uint32(len(body)))
	binary.LittleEndian.PutUint32(body[fields.Directory+4:], uint32(len(table)))
	out := append(body, table...)
	clear(out[fields.Checksum : fields.Checksum+4])
	binary.LittleEndian.PutUint32(out[fields.Checksum:], uki.Checksum(out))
	return out, nil
}

func pad(b []byte) []byte {
	return append(b, make([]byte, -len(b)&(tableAlignment-1))...)
}

// Verify says whether a program of that size carries a signature of the
// certificate, as the firmware would with it in db: validity in time does not
// count. The error for one that doesn't is ErrNotSigned.
func Verify(r io.ReaderAt, size int64, certificate *x509.Certificate) error {
	entries, sum, err := signatures(r, size)
	if err != nil {
		return err
	}
	why := ErrNotSigned
	for _, e := range entries {
		err := verifyEntry(e, sum, certificate)
		if err == nil {
			return nil
		}
		why = fmt.Errorf("%w: %w", ErrNotSigned, err)
	}
	return why
}

// Signers are the certificates that a program of that size brings along and
// whose keys have signed it. Whether they are to be trusted is not said. There
// are none if it has no signature; one that is of something else is an error.
func Signers(r io.ReaderAt, size int64) ([]*x509.Certificate, error) {
	entries, sum, err := signatures(r, size)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for _, e := range entries {
		signer, err := signerOf(e, sum)
		if err != nil {
			return nil, err
		}
		found = append(found, signer)
	}
	return found, nil
}

func signerOf(der, programDigest []byte) (*x509.Certificate, error) {
	p, err := pkcs7.ParsePKCS7(der)
	if err != nil {
		return nil, err
	}
	err = errors.New("the signature brings no certificate along")
	for _, c := range p.Certs {
		if err = verifyEntry(der, programDigest, c); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// signatures are those of a program, and the digest that they should be of.
func signatures(r io.ReaderAt, size int64) (entries [][]byte, sum []byte, err error) {
	fields, err := uki.Signature(r, size)
	if err != nil {
		return nil, nil, err
	}
	if fields.TableSize > maxTable {
		return nil, nil, fmt.Errorf("signatures of %d bytes, want %d at most", fields.TableSize, maxTable)
	}
	table := make([]byte, fields.TableSize)
	if _, err := r.ReadAt(table, fields.Table); err != nil && len(table) > 0 {
		return nil, nil, fmt.Errorf("read signatures: %w", err)
	}
	for len(table) > entryHeader {
		n := int(binary.LittleEndian.Uint32(table))
		if n < entryHeader || n > len(table) {
			return nil, nil, errors.New("a signature that is longer than the table it is in")
		}
		if binary.LittleEndian.Uint16(table[6:]) == entrySigned {
			entries = append(entries, table[entryHeader:n])
		}
		table = table[min(len(table), (n+tableAlignment-1)&^(tableAlignment-1)):]
	}
	sum, err = digest(r, fields, fields.Table)
	return entries, sum, err
}

// verifyEntry checks that the certificate's key signed attributes that hold the
// digest of a statement that holds the digest of the program. The library
// leaves the middle step out.
func verifyEntry(der, programDigest []byte, certificate *x509.Certificate) error {
	p, err := pkcs7.ParsePKCS7(der)
	if err != nil {
		return err
	}
	if !p.OID.Equal(oidIndirectData) {
		return fmt.Errorf("the signature is of %v, not of a program", p.OID)
	}
	content := cryptobyte.String(p.ContentInfo)
	var statement cryptobyte.String
	if !content.ReadASN1(&statement, casn1.SEQUENCE) {
		return errors.New("the signature has no statement")
	}
	said, err := readIndirectData(statement)
	if err != nil {
		return err
	}
	if !bytes.Equal(said, programDigest) {
		return errors.New("the signature is of another program")
	}
	sum := sha256.Sum256(statement)
	err = errors.New("no signature is by the certificate's key")
	for _, s := range p.SignerInfo {
		a := s.AuthenticatedAttributes
		if a == nil || !a.ContentType.Equal(oidIndirectData) || !bytes.Equal(a.MessageDigest, sum[:]) {
			err = errors.New("the signature does not fit its statement")
			continue
		}
		if err = certificate.CheckSignature(x509.SHA256WithRSA, a.RawBytes, s.EncryptedDigest); err == nil {
			return nil
		}
	}
	return err
}

// digest is Authenticode's: of all bytes up to end but the two fields.
func digest(r io.ReaderAt, fields uki.SignatureFields, end int64) ([]byte, error) {
	h := sha256.New()
	var from int64
	for _, skip := range []struct{ at, size int64 }{{fields.Checksum, 4}, {fields.Directory, 8}, {end, 0}} {
		if _, err := io.Copy(h, io.NewSectionReader(r, from, skip.at-from)); err != nil {
			return nil, fmt.Errorf("read program: %w", err)
		}
		from = skip.at + skip.size
	}
	return h.Sum(nil), nil
}

// indirectData is the content of Authenticode's SpcIndirectDataContent: what
// kind of thing has which SHA-256.
func indirectData(digest []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidImageData)
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // SpcPeImageData
			b.AddASN1BitString(nil)
			explicit := func(tag casn1.Tag) casn1.Tag { return tag.ContextSpecific().Constructed() }
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
				b.AddASN1(explicit(2), func(b *cryptobyte.Builder) {
					b.AddASN1(casn1.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {}) // no file name
				})
			})
		})
	})
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) { // DigestInfo
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(pkcs7.OIDDigestAlgorithmSHA256)
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(digest)
	})
	return b.Bytes()
}

func readIndirectData(s cryptobyte.String) (digest []byte, err error) {
	var kind, info, algorithm cryptobyte.String
	var what, hash asn1.ObjectIdentifier
	var sum cryptobyte.String
	ok := s.ReadASN1(&kind, casn1.SEQUENCE) && kind.ReadASN1ObjectIdentifier(&what) &&
		s.ReadASN1(&info, casn1.SEQUENCE) && info.ReadASN1(&algorithm, casn1.SEQUENCE) &&
		algorithm.ReadASN1ObjectIdentifier(&hash) && info.ReadASN1(&sum, casn1.OCTET_STRING)
	switch {
	case !ok:
		return nil, errors.New("the signature's statement can't be read")
	case !what.Equal(oidImageData):
		return nil, fmt.Errorf("the signature's statement is about %v, not about a program", what)
	case !hash.Equal(pkcs7.OIDDigestAlgorithmSHA256):
		return nil, fmt.Errorf("the signature's statement uses %v, want SHA-256", hash)
	}
	return sum, nil
}
