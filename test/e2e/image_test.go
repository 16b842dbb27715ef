//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// imagesDir is the OCI layout that the cluster's nodes pull from.
func imagesDir() string {
	if kubernetesVersion != "" {
		return "../../_out/images-soak"
	}
	return "../../_out/images"
}

// refName is the annotation that names an image in an OCI layout.
const refName = "org.opencontainers.image.ref.name"

type layoutEntry struct {
	Digest      string
	Annotations map[string]string
}

func layoutEntries() ([]layoutEntry, error) {
	data, err := os.ReadFile(filepath.Join(imagesDir(), "index.json"))
	if err != nil {
		return nil, err
	}
	var index struct{ Manifests []layoutEntry }
	return index.Manifests, json.Unmarshal(data, &index)
}

// imageInLayout finds the full reference of an image that the build made, by
// a part of its name, so that versions stand in one place.
func imageInLayout(part string) string {
	list, err := layoutEntries()
	if err != nil {
		return "missing, run `make image`: " + err.Error()
	}
	for _, m := range list {
		if ref := m.Annotations[refName]; strings.Contains(ref, part) {
			return ref
		}
	}
	return "missing: no image is named " + part
}

// layoutDigest is the digest of an image by its full reference; "" without one.
func layoutDigest(ref string) string {
	list, _ := layoutEntries() // imageInLayout has said what is wrong
	for _, m := range list {
		if m.Annotations[refName] == ref {
			return m.Digest
		}
	}
	return ""
}
