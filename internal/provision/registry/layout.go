package registry

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Media types of what an index can hold.
const (
	typeIndex  = "application/vnd.oci.image.index.v1+json"
	typeOctets = "application/octet-stream"
)

var digestPattern = regexp.MustCompile(`^sha256:[a-f0-9]{64}$`)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// layout is an OCI image layout on disk. Its index is read again when it changed.
type layout struct {
	dir string

	mu     sync.Mutex            // guards the fields below
	seen   time.Time             // modification time of the index read last
	images map[string]descriptor // by full name: host/repository:tag
}

// lookup finds an image by repository and tag. host may be "": then the
// repository may start with the host, or be unique among all hosts.
func (l *layout) lookup(host, repository, tag string) (descriptor, bool, error) {
	images, err := l.index()
	if err != nil {
		return descriptor{}, false, err
	}
	if host != "" {
		d, ok := images[host+"/"+repository+":"+tag]
		return d, ok, nil
	}
	if d, ok := images[repository+":"+tag]; ok {
		return d, true, nil
	}
	var found []descriptor
	for name, d := range images {
		if _, rest, ok := strings.Cut(name, "/"); ok && rest == repository+":"+tag {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return descriptor{}, false, nil
	}
	return found[0], true, nil
}

func (l *layout) index() (map[string]descriptor, error) {
	path := filepath.Join(l.dir, "index.json")
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.images != nil && info.ModTime().Equal(l.seen) {
		return l.images, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	l.images, l.seen = map[string]descriptor{}, info.ModTime()
	for _, d := range index.Manifests {
		if name := imageName(d.Annotations); name != "" {
			l.images[name] = d
		}
	}
	return l.images, nil
}

// imageName is the full name that an index gives an image.
func imageName(annotations map[string]string) string {
	if name := annotations["io.containerd.image.name"]; name != "" {
		return name
	}
	return annotations["org.opencontainers.image.ref.name"]
}

func (l *layout) blob(digest string) string {
	return filepath.Join(l.dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

// mediaType reads the type that a manifest states of itself.
func mediaType(manifest []byte) string {
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	switch err := json.Unmarshal(manifest, &m); {
	case err != nil:
		return typeOctets
	case m.MediaType != "":
		return m.MediaType
	case m.Manifests != nil:
		return typeIndex
	default:
		return "application/vnd.oci.image.manifest.v1+json"
	}
}
