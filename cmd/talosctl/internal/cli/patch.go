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
		_, one, err := ReadPatch(p)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, one)
	}
	return config.ApplyPatches(doc, parsed)
}

// ReadPatch reads a patch as a user gives it: its text, or @FILE.
func ReadPatch(given string) ([]byte, config.Patch, error) {
	text, name := []byte(given), "patch"
	if file, ok := strings.CutPrefix(given, "@"); ok {
		var err error
		if text, err = os.ReadFile(file); err != nil {
			return nil, config.Patch{}, err
		}
		name = file
	}
	p, err := config.LoadPatch(text)
	if err == nil {
		return text, p, nil
	}
	if _, ferr := os.Stat(given); ferr == nil {
		return nil, config.Patch{}, Usage("patch %q is the name of a file: say @%s", given, given)
	}
	return nil, config.Patch{}, fmt.Errorf("%s: %w", name, err)
}
