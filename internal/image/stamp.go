package image

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"talos/internal/linux/atomicfile"
)

// A stamp is a file beside an output that says what the output was made from.

func stampFile(output string) string { return output + ".inputs" }

func upToDate(output, stamp string) bool {
	if _, err := os.Stat(output); err != nil {
		return false
	}
	have, err := os.ReadFile(stampFile(output))
	return err == nil && string(have) == stamp
}

func writeStamp(output, stamp string) error {
	return atomicfile.Update(stampFile(output), []byte(stamp), 0o644)
}

// WriteOutput makes a file that appears whole or not at all: write gets the name
// of a temporary one beside it. Nothing is done when the file was made with the
// same stamp before; the result says whether it was written.
func WriteOutput(name, stamp string, write func(temp string) error) (written bool, err error) {
	if upToDate(name, stamp) {
		return false, nil
	}
	temp := name + ".new"
	if err := os.RemoveAll(temp); err != nil {
		return false, err
	}
	defer os.Remove(temp) // gone already when all went well
	if err := write(temp); err != nil {
		return false, err
	}
	if err := os.Rename(temp, name); err != nil {
		return false, err
	}
	return true, writeStamp(name, stamp)
}

// digest is the hash of the tree's tar stream, which is also how OCI names an
// uncompressed layer.
func (t *Tree) digest() (string, error) {
	h := sha256.New()
	if err := t.WriteTar(h); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// FileDigest is the hash of a file's content.
func FileDigest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
