package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Components is the folder in which components/build leaves a folder of
// programs per component, each with its version.
type Components string

// Path names a file of a component.
func (c Components) Path(component, file string) string {
	return filepath.Join(string(c), component, file)
}

// Version reads a version that components/build has noted.
func (c Components) Version(component, file string) (string, error) {
	b, err := os.ReadFile(c.Path(component, file))
	if err != nil {
		return "", fmt.Errorf("component %s is not built (run components/build): %w", component, err)
	}
	return strings.TrimSpace(string(b)), nil
}
