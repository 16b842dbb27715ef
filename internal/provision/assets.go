package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"talos/config"
)

// Assets are the files that clusters are made from. Which of them a cluster
// needs depends on what its nodes are.
type Assets struct {
	Runc      string `yaml:"runc,omitempty"`      // program
	Rootfs    string `yaml:"rootfs,omitempty"`    // SquashFS of the node
	Images    string `yaml:"images"`              // OCI layout folder
	ISO       string `yaml:"iso,omitempty"`       // bootable image
	Disk      string `yaml:"disk,omitempty"`      // raw image of an installed disk
	Kernel    string `yaml:"kernel,omitempty"`    // kernel
	Initramfs string `yaml:"initramfs,omitempty"` // initramfs that has the root in it
	Cmdline   string `yaml:"cmdline,omitempty"`   // file with the kernel command line for these two
}

// asset is one of them: what it is called, where it is beside the program, and
// where its path goes.
type asset struct {
	what string
	rel  []string
	into func(*Assets) *string
}

var (
	assetRunc      = asset{"runc", []string{"runc", "bin/runc", "components/runc/runc"}, func(a *Assets) *string { return &a.Runc }}
	assetRootfs    = asset{"rootfs.squashfs", []string{"rootfs.squashfs"}, func(a *Assets) *string { return &a.Rootfs }}
	assetImages    = asset{"images", []string{"images"}, func(a *Assets) *string { return &a.Images }}
	assetISO       = asset{"talos-amd64.iso", []string{"talos-amd64.iso"}, func(a *Assets) *string { return &a.ISO }}
	assetDisk      = asset{"talos-amd64.raw", []string{"talos-amd64.raw"}, func(a *Assets) *string { return &a.Disk }}
	assetKernel    = asset{"vmlinuz", []string{"vmlinuz", "kernel/vmlinuz"}, func(a *Assets) *string { return &a.Kernel }}
	assetInitramfs = asset{"initramfs-full.zst", []string{"initramfs-full.zst"}, func(a *Assets) *string { return &a.Initramfs }}
	assetCmdline   = asset{"cmdline", []string{"cmdline"}, func(a *Assets) *string { return &a.Cmdline }}

	// Of the platform nocloud; see imager's -platform.
	assetNoCloudISO  = asset{"talos-nocloud-amd64.iso", []string{"talos-nocloud-amd64.iso"}, assetISO.into}
	assetNoCloudDisk = asset{"talos-nocloud-amd64.raw", []string{"talos-nocloud-amd64.raw"}, assetDisk.into}
)

// find looks for those of wanted that a does not name: where make puts them
// (_out, seen from _out/bin, where this program is, or from the working folder),
// beside this program, and, for runc, on PATH. The others are left out.
func (a Assets) find(wanted ...asset) (Assets, error) {
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
	var out Assets
	var errs []error
	for _, want := range wanted {
		path, err := locate(*want.into(&a), want.what, folders, want.rel)
		*want.into(&out) = path
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
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
	if what == assetNoCloudISO.what {
		return "", fmt.Errorf("find %s: not in %v; make it with `_out/bin/imager iso -platform nocloud -o _out/%s`", what, folders, what)
	}
	target := "image"
	if what == assetRootfs.what || what == assetImages.what { // without the kernel
		target = "rootfs"
	}
	return "", fmt.Errorf("find %s: not in %v; make it with `make %s`", what, folders, target)
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
