package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/layout"
	"talos/internal/netsetup"
	"talos/internal/resources/runtime"
)

// container is a node that the cluster's supervisor hands a folder.
type container struct{ *Platform }

func (p container) configuration(context.Context) ([]byte, string, error) {
	path := filepath.Join(p.Dir, filepath.Base(layout.PlatformConfigFile))
	document, err := readOptional(path)
	return document, "the platform", err
}

func (p container) network(context.Context) (netsetup.Network, error) {
	name, err := p.hostname()
	return netsetup.Network{Hostname: name}, err
}

func (p container) metadata(context.Context) (runtime.PlatformMetadataSpec, error) {
	name, err := p.hostname()
	return runtime.PlatformMetadataSpec{Hostname: name}, err
}

func (p container) hostname() (string, error) {
	text, err := readOptional(filepath.Join(p.Dir, "hostname"))
	name := strings.TrimSpace(string(text))
	if err != nil || name == "" {
		return "", err
	}
	if err := netsetup.CheckHostname(name); err != nil {
		return "", fmt.Errorf("the platform's host name: %w", err)
	}
	return name, nil
}

// readOptional reads a file that need not be there.
func readOptional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
