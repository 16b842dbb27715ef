package secureboot

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"talos/internal/pki"
)

// bits of the RSA keys: what every firmware takes.
const bits = 2048

// lifetime of the certificates. Firmwares don't look at it.
const lifetime = 30 * 365 * 24 * time.Hour

// Enrolment names the files by which firmware or boot loader take the keys, in
// the order in which they must be taken.
var Enrolment = []string{"db.auth", "KEK.auth", "PK.auth"}

// Files of a folder of keys.
const (
	dbKeyFile         = "db.key"
	DBCertificateFile = "db.crt"
	checksumsKeyFile  = "checksums.key"
	ChecksumsFile     = "checksums.pub"
)

// File is one of a folder of keys.
type File struct {
	Name    string
	Data    []byte
	Private bool
}

// Generate makes the keys of machines that belong together, as files: for each
// of PK, KEK and db the private key and the certificate (PEM and DER), the list
// that holds it and the signed list; and the two halves of the key for
// checksums. Certificates in others are admitted to db as well.
func Generate(name string, others []*x509.Certificate, now time.Time) ([]File, error) {
	var owner guid
	rand.Read(owner[:]) // never fails
	owner[7], owner[8] = owner[7]&0x0f|0x40, owner[8]&0x3f|0x80
	var files []File
	var admit Pair
	for _, v := range []variable{pk, kek, db} {
		pair, err := newPair(name+" "+v.name, now)
		if err != nil {
			return nil, err
		}
		if v == pk {
			admit = pair
		}
		certificates := []*x509.Certificate{pair.Certificate}
		if v == db {
			certificates = append(certificates, others...)
		}
		list := signatureList(owner, certificates...)
		auth, err := enrolment(v, list, admit, now)
		if err != nil {
			return nil, err
		}
		admit = pair
		key, err := pki.MarshalKey(pair.Key)
		if err != nil {
			return nil, err
		}
		crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate.Raw})
		files = append(files, File{v.name + ".key", key, true}, File{v.name + ".crt", crt, false},
			File{v.name + ".der", pair.Certificate.Raw, false}, File{v.name + ".esl", list, false}, File{v.name + ".auth", auth, false})
	}
	checksums, err := newChecksumsKey()
	return append(files, checksums...), err
}

func newPair(name string, now time.Time) (Pair, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return Pair{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-pki.Skew).UTC(),
		NotAfter:              now.Add(lifetime).UTC(),
		SignatureAlgorithm:    x509.SHA256WithRSA,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign certificate %q: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	return Pair{key, certificate}, err
}

// newChecksumsKey makes files that openssl reads.
func newChecksumsKey() ([]File, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	return []File{
		{checksumsKeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER}), true},
		{ChecksumsFile, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER}), false},
	}, nil
}

// Keys is what signing images takes out of a folder.
type Keys struct {
	DB        Pair
	Enrolment map[string][]byte // by file name; empty when the folder has none
}

// Load reads a folder that Generate's files are in, or the user's own by the
// same names: db.key and db.crt, and the .auth files or none of them.
func Load(dir string) (*Keys, error) {
	k := &Keys{Enrolment: map[string][]byte{}}
	key, err := os.ReadFile(filepath.Join(dir, dbKeyFile))
	if err != nil {
		return nil, err
	}
	if k.DB.Key, err = pki.ParseKey(key); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, dbKeyFile), err)
	}
	if k.DB.Certificate, err = ReadCertificate(filepath.Join(dir, DBCertificateFile)); err != nil {
		return nil, err
	}
	if public, ok := k.DB.Key.Public().(*rsa.PublicKey); !ok || !public.Equal(k.DB.Certificate.PublicKey) {
		return nil, fmt.Errorf("%s: the key is not the RSA key of the certificate", filepath.Join(dir, dbKeyFile))
	}
	for _, name := range Enrolment {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			k.Enrolment[name] = data
		}
	}
	if n := len(k.Enrolment); n != 0 && n != len(Enrolment) {
		return nil, fmt.Errorf("%s: want all of %v, or none", dir, Enrolment)
	}
	return k, nil
}

// ReadCertificate reads a certificate from a file, PEM or DER.
func ReadCertificate(name string) (*x509.Certificate, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	c, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// ReadChecksumsKey reads the private key for checksums: of a folder of keys, or
// in a file.
func ReadChecksumsKey(name string) (ed25519.PrivateKey, error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		name = filepath.Join(name, checksumsKeyFile)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: want an Ed25519 key, got %T", name, key)
	}
	return private, nil
}

// ReadChecksumsPublicKey reads the public half from a file.
func ReadChecksumsPublicKey(name string) (ed25519.PublicKey, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s: want a public key in PEM", name)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s: want an Ed25519 key, got %T", name, key)
	}
	return public, nil
}
