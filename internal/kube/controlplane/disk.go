package controlplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"talos/internal/linux/atomicfile"
)

// writeFolder makes a folder hold exactly f, readable by uid alone.
func writeFolder(folder string, uid int, f files) error {
	if err := privateFolder(folder, uid); err != nil {
		return err
	}
	for name, data := range f {
		if err := atomicfile.UpdateAs(filepath.Join(folder, name), data, 0o400, uid); err != nil {
			return err
		}
	}
	have, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range have {
		if _, ok := f[e.Name()]; !ok {
			if err := os.RemoveAll(filepath.Join(folder, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// privateFolder makes a folder that uid alone can enter. Those above it are for
// everyone: each user of them has one of its own inside.
func privateFolder(folder string, uid int) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return errors.Join(os.Chmod(folder, 0o700), os.Chown(folder, uid, uid))
}

// manifestFile is the name of a static pod's file. The kubelet takes no file
// whose name begins with a dot, as that of a temporary one does.
func manifestFile(id string) string { return "talos-" + strings.ReplaceAll(id, "/", "-") + ".yaml" }

// writeManifests makes the folder hold one file for each pod, and none of ours
// besides.
func writeManifests(folder string, pods map[string]m) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	keep := map[string]bool{}
	for id, pod := range pods {
		data, err := yaml.Marshal(pod)
		if err != nil {
			return fmt.Errorf("encode static pod %s: %w", id, err)
		}
		keep[manifestFile(id)] = true
		if err := atomicfile.UpdateAs(filepath.Join(folder, manifestFile(id)), data, 0o600, os.Geteuid()); err != nil {
			return err
		}
	}
	have, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range have {
		if strings.HasPrefix(e.Name(), "talos-") && !keep[e.Name()] {
			if err := os.Remove(filepath.Join(folder, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
