package boot

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"regexp"

	"talos/internal/linux/atomicfile"
)

var validMachineID = regexp.MustCompile(`^[0-9a-f]{32}\n?$`)

// machineID keeps the node's id (machine-id(5)) in a file on STATE, making it
// the first time, and shows it at another place. An unreadable one is replaced.
func machineID(kept, shown string) error {
	id, err := os.ReadFile(kept)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if !validMachineID.Match(id) {
		raw := make([]byte, 16)
		if _, err := rand.Read(raw); err != nil {
			return err
		}
		id = []byte(hex.EncodeToString(raw) + "\n")
		if err := atomicfile.Save(kept, id, 0o444); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(shown), 0o755); err != nil {
		return err
	}
	return os.WriteFile(shown, id, 0o444)
}
