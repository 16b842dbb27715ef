package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// refuseExisting protects files that hold keys from being overwritten.
func refuseExisting(path string, force bool) error {
	_, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && force:
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%s exists already: name another place with -o, or overwrite it with --force", path)
}
