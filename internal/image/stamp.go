package image

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
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
	return os.WriteFile(stampFile(output), []byte(stamp), 0o644)
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
