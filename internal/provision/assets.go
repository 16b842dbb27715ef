package provision

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"talos/config"
)

// Assets are the files that clusters are made from.
type Assets struct {
	Runc   string `yaml:"runc"`   // program
	Rootfs string `yaml:"rootfs"` // SquashFS of the node
	Images string `yaml:"images"` // OCI layout folder
}

// FindAssets looks for what a does not name: where make puts it (_out, seen
// from _out/bin, where this program is, or from the working folder), beside this
// program, and, for runc, on PATH.
func FindAssets(a Assets) (Assets, error) {
	var folders []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		folders = append(folders, filepath.Dir(exe), filepath.Dir(filepath.Dir(exe)))
	}
	if wd, err := os.Getwd(); err == nil {
		folders = append(folders, filepath.Join(wd, "_out"))
	}
	for _, want := range []struct {
		into *string
		what string
		rel  []string
	}{
		{&a.Runc, "runc", []string{"runc", "bin/runc", "components/runc/runc"}},
		{&a.Rootfs, "rootfs.squashfs", []string{"rootfs.squashfs"}},
		{&a.Images, "images", []string{"images"}},
	} {
		path, err := locate(*want.into, want.what, folders, want.rel)
		if err != nil {
			return Assets{}, err
		}
		*want.into = path
	}
	return a, nil
}

func locate(given, what string, folders, rel []string) (string, error) {
	if given != "" {
		if _, err := os.Stat(given); err != nil {
			return "", fmt.Errorf("find %s: %w", what, err)
		}
		return filepath.Abs(given)
	}
	for _, folder := range folders {
		for _, r := range rel {
			path := filepath.Join(folder, r)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
	}
	if what == "runc" {
		if path, err := exec.LookPath(what); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("find %s: not in %v; make it with `make build image`", what, folders)
}

// checkImages makes sure that the nodes will find their Kubernetes.
func (a Assets) checkImages(kubernetes string) error {
	want := config.KubernetesImage(config.KubeletRepository, kubernetes)
	path := filepath.Join(a.Images, "index.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read images: %w", err)
	}
	var index struct {
		Manifests []struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	for _, m := range index.Manifests {
		for _, name := range m.Annotations {
			if name == want {
				return nil
			}
		}
	}
	return fmt.Errorf("kubernetes %s: no image %s in %s", kubernetes, want, a.Images)
}
