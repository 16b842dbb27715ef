// Package identity is what makes a node this node and no other: a key pair
// that is made when its STATE is new and stays until STATE is wiped. Others
// know the node by its id, which is the hash of the public key.
//
// The private key is used for nothing but signing what the node says to trustd
// about itself; certificates have keys of their own, which change. The key
// never leaves machined. An Identity is safe for concurrent use.
package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"regexp"

	"talos/internal/linux/atomicfile"
	"talos/internal/pki"
)

// ID is a node's id: 43 letters and digits.
type ID string

var validID = regexp.MustCompile(`^[0-9A-Za-z]{20,64}$`)

// Valid says whether it can be one.
func (id ID) Valid() bool { return validID.MatchString(string(id)) }

// Of is the id of the node with a public key, PKIX DER.
func Of(public []byte) ID {
	sum := sha256.Sum256(public)
	return ID(fmt.Sprintf("%043s", new(big.Int).SetBytes(sum[:]).Text(62)))
}

// Identity is a node's own.
type Identity struct {
	ID     ID
	Public []byte // PKIX DER
	key    ed25519.PrivateKey
}

// New makes one that nobody had before.
func New() (*Identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the node's identity: %w", err)
	}
	return of(key)
}

func of(key ed25519.PrivateKey) (*Identity, error) {
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode the node's identity: %w", err)
	}
	return &Identity{ID: Of(public), Public: public, key: key}, nil
}

// Load reads the identity kept in a file, which is made the first time. One
// that cannot be read as a key is replaced: the node is a new one then.
func Load(path string) (*Identity, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the node's identity: %w", err)
	}
	if err == nil {
		if key, err := pki.ParseKey(data); err == nil {
			if key, ok := key.(ed25519.PrivateKey); ok {
				return of(key)
			}
		}
	}
	made, err := New()
	if err != nil {
		return nil, err
	}
	text, err := pki.MarshalKey(made.key)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Save(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("keep the node's identity: %w", err)
	}
	return made, nil
}

// Sign signs a statement.
func (i *Identity) Sign(statement []byte) []byte { return ed25519.Sign(i.key, statement) }

// Verify says whether the holder of a public key, PKIX DER, signed a statement.
func Verify(public, statement, signature []byte) error {
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return fmt.Errorf("identity is a %T, not an Ed25519 key", parsed)
	}
	if !ed25519.Verify(key, statement, signature) {
		return errors.New("the signature is not the identity's")
	}
	return nil
}

// Statement joins what is signed so that nothing of it can be read otherwise:
// its purpose first, then each part after its length.
func Statement(purpose string, parts ...[]byte) []byte {
	var out bytes.Buffer
	for _, part := range append([][]byte{[]byte("talos " + purpose + " v1")}, parts...) {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(part)))
		out.Write(size[:])
		out.Write(part)
	}
	return out.Bytes()
}

// Request is what a node states when it asks for a certificate.
type Request struct {
	CSR             []byte // DER or PEM, as sent
	Identity        []byte
	Proofs          [][]byte
	OperatingSystem string
	Unlisted        bool
}

// Statement is what its identity signs.
func (r Request) Statement() []byte {
	unlisted := []byte{0}
	if r.Unlisted {
		unlisted[0] = 1
	}
	return Statement("certificate request", append([][]byte{r.CSR, r.Identity, []byte(r.OperatingSystem), unlisted}, r.Proofs...)...)
}

// LeaveStatement is what the identity signs that leaves the cluster.
func LeaveStatement(public []byte, unix int64) []byte {
	return Statement("leave", public, binary.BigEndian.AppendUint64(nil, uint64(unix)))
}
