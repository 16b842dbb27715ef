package cli

import (
	"fmt"
	"os"
	"strings"

	"talos/config"
)

// Patch changes a configuration by patches as users give them: the text of a
// patch, or @FILE.
func Patch(doc []byte, patches []string) ([]byte, error) {
	parsed := make([]config.Patch, 0, len(patches))
	for _, p := range patches {
		text, name := []byte(p), "patch"
		if file, ok := strings.CutPrefix(p, "@"); ok {
			var err error
			if text, err = os.ReadFile(file); err != nil {
				return nil, err
			}
			name = file
		}
		one, err := config.LoadPatch(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		parsed = append(parsed, one)
	}
	return config.ApplyPatches(doc, parsed)
}
