package signer

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"talos/internal/identity"
	"talos/internal/resources/secrets"
)

// A proof says that the holder of an identity called from an address. It is
// not stored: every control plane node can check one, by a key that they share
// because they share the authority's. It is of use to that identity only, for
// that address, for some minutes; to show it again proves nothing more.
const (
	proofLifetime = 2 * time.Minute
	addressSize   = 16
	timeSize      = 8
	proofSize     = addressSize + timeSize + sha256.Size
)

// proofKey is derived from the authority's key, which only control plane
// nodes have.
func proofKey(spec *secrets.OSRootSecretsSpec) ([]byte, error) {
	if spec.IssuingCA == nil {
		return nil, errors.New("this node holds no CA key")
	}
	block, _ := pem.Decode(spec.IssuingCA.Key)
	if block == nil {
		return nil, errors.New("this node holds no CA key")
	}
	return hkdf.Key(sha256.New, block.Bytes, nil, "talos trustd address proof", sha256.Size)
}

func makeProof(key []byte, addr netip.Addr, id identity.ID, now time.Time) []byte {
	raw := addr.As16()
	out := append(make([]byte, 0, proofSize), raw[:]...)
	out = binary.BigEndian.AppendUint64(out, uint64(now.Add(proofLifetime).Unix()))
	return append(out, proofMAC(key, out, id)...)
}

func proofMAC(key, fields []byte, id identity.ID) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(identity.Statement("address proof", fields, []byte(id)))
	return h.Sum(nil)
}

// checkProof returns the address that a proof is for.
func checkProof(key, proof []byte, id identity.ID, now time.Time) (netip.Addr, error) {
	if len(proof) != proofSize {
		return netip.Addr{}, fmt.Errorf("proof of an address has %d bytes, not %d", len(proof), proofSize)
	}
	fields, mac := proof[:addressSize+timeSize], proof[addressSize+timeSize:]
	if !hmac.Equal(mac, proofMAC(key, fields, id)) {
		return netip.Addr{}, errors.New("proof of an address is not one that this cluster gave this node")
	}
	addr := netip.AddrFrom16([addressSize]byte(fields[:addressSize])).Unmap()
	if expires := time.Unix(int64(binary.BigEndian.Uint64(fields[addressSize:])), 0); now.After(expires) {
		return netip.Addr{}, fmt.Errorf("proof of address %s is too old", addr)
	}
	return addr, nil
}
