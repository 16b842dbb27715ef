package artefact

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// SumsName is what a list of checksums is called. The signature beside it ends
// in SignatureSuffix: 64 bytes of Ed25519 over the list as it is.
const (
	SumsName        = "SHA256SUMS"
	SignatureSuffix = ".sig"
)

// maxSums is the size of a list that is read.
const maxSums = 1 << 20

// Sum is a line of a list.
type Sum struct {
	SHA256 [sha256.Size]byte
	Name   string // of a file beside the list
}

// Sums makes a list of files in one folder, in the order of their names, as
// sha256sum writes it.
func Sums(dir string, names ...string) ([]byte, error) {
	var b bytes.Buffer
	for _, name := range slices.Sorted(slices.Values(names)) {
		sum, err := sumFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%x  %s\n", sum, name)
	}
	if _, err := ParseSums(b.Bytes()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ParseSums reads a list. Names are those of files in its own folder, each once.
func ParseSums(data []byte) ([]Sum, error) {
	if len(data) > maxSums {
		return nil, fmt.Errorf("a list of %d bytes, want %d at most", len(data), maxSums)
	}
	var sums []Sum
	seen := map[string]bool{}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		digits, name, ok := strings.Cut(s.Text(), "  ")
		if !ok || len(digits) != hex.EncodedLen(sha256.Size) {
			return nil, fmt.Errorf("line %d: want 64 digits, two spaces, a name", len(sums)+1)
		}
		sum := Sum{Name: name}
		if _, err := hex.Decode(sum.SHA256[:], []byte(digits)); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(sums)+1, err)
		}
		if name != filepath.Base(name) || name == "." || name == ".." || name == "/" || seen[name] {
			return nil, fmt.Errorf("line %d: %q: want the name of a file in the list's folder, each once", len(sums)+1, name)
		}
		seen[name] = true
		sums = append(sums, sum)
	}
	if len(sums) == 0 {
		return nil, errors.New("the list is empty")
	}
	return sums, nil
}

func sumFile(name string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// checkSums checks a list's signature, and the files that it names.
func checkSums(name string, key ed25519.PublicKey) ([]Result, error) {
	name = strings.TrimSuffix(name, SignatureSuffix)
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	sums, err := ParseSums(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	outcome, detail, err := checkSumsSignature(name, data, key)
	if err != nil {
		return nil, err
	}
	results := []Result{{name, "", "list signature", outcome, detail}}
	for _, s := range sums {
		got, err := sumFile(filepath.Join(filepath.Dir(name), s.Name))
		r := Result{name, s.Name, "checksum", OK, hex.EncodeToString(s.SHA256[:])}
		switch {
		case err != nil:
			r.Outcome, r.Detail = Failed, err.Error()
		case got != s.SHA256:
			r.Outcome, r.Detail = Failed, fmt.Sprintf("it is %x, the list says %x", got, s.SHA256)
		}
		results = append(results, r)
	}
	return results, nil
}

func checkSumsSignature(name string, data []byte, key ed25519.PublicKey) (Outcome, string, error) {
	if key == nil {
		return Skipped, "no key given", nil
	}
	signature, err := os.ReadFile(name + SignatureSuffix)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Failed, "there is no " + name + SignatureSuffix, nil
	case err != nil:
		return Failed, "", err
	case len(signature) != ed25519.SignatureSize || !ed25519.Verify(key, data, signature):
		return Failed, "not signed by this key", nil
	}
	return OK, "signed by this key", nil
}
