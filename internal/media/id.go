package media

import (
	"crypto/sha256"
	"fmt"

	"talos/internal/verity"
)

// deriveID is a UUID (RFC 9562, version 8) that belongs to a root and to what
// it names beside it.
func deriveID(root verity.Root, what string) string {
	sum := sha256.Sum256(append(root[:], what...))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
