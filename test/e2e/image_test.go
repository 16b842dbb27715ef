//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"strings"
)

// imageInLayout finds the full reference of an image that the build made, by
// a part of its name, so that versions stand in one place.
func imageInLayout(part string) string {
	data, err := os.ReadFile("../../_out/images/index.json")
	if err != nil {
		return "missing: run `make image`"
	}
	var index struct {
		Manifests []struct{ Annotations map[string]string }
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return "unreadable: " + err.Error()
	}
	for _, m := range index.Manifests {
		if ref := m.Annotations["org.opencontainers.image.ref.name"]; strings.Contains(ref, part) {
			return ref
		}
	}
	return "missing: no image is named " + part
}
