package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// The PEM types of private keys. Ed25519 keys are PKCS#8 under a type of their
// own, which is how the ecosystem's tools tell them apart.
const (
	pemEd25519 = "ED25519 PRIVATE KEY"
	pemECDSA   = "EC PRIVATE KEY"
	pemPKCS8   = "PRIVATE KEY"
	pemRSA     = "RSA PRIVATE KEY"
)

// MarshalKey gives the PEM form of a private key.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	kind, der, err := pemPKCS8, []byte(nil), error(nil)
	switch k := key.(type) {
	case ed25519.PrivateKey:
		kind = pemEd25519
		der, err = x509.MarshalPKCS8PrivateKey(k)
	case *ecdsa.PrivateKey:
		kind = pemECDSA
		der, err = x509.MarshalECPrivateKey(k)
	default:
		der, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), nil
}

// ParseKey reads a private key: Ed25519, ECDSA or RSA, in any of the usual forms.
func ParseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("private key is not PEM")
	}
	var (
		key any
		err error
	)
	switch block.Type {
	case pemECDSA:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case pemRSA:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case pemPKCS8, pemEd25519:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("PEM block is %q, want a private key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of kind %T cannot sign", key)
	}
	return signer, acceptable(signer)
}

// ParseCertificate reads the first certificate of data.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	all, err := ParseCertificates(data)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// ParseCertificates reads all certificates of data, at least one.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, errors.New("certificate is not PEM")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block is %q, want a certificate", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w", err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate given")
	}
	return all, nil
}

// PublicKeyPEM gives the public half of a private key, PKIX in PEM.
func PublicKeyPEM(private []byte) ([]byte, error) {
	key, err := ParseKey(private)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
