package boot

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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
		if err := replace(kept, id); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(shown), 0o755); err != nil {
		return err
	}
	return os.WriteFile(shown, id, 0o444)
}

// replace writes a small file so that a loss of power leaves the old or the new.
func replace(path string, content []byte) error {
	temp := path + ".new"
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o444)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temp, err)
	}
	return os.Rename(temp, path)
}
