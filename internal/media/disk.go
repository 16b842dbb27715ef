package media

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/secureboot"
)

// sectorSize of disk images, in bytes.
const sectorSize = 512

// DiskSize is the size of a disk image unless told otherwise, in bytes. A raw
// image is to be written to a disk, which has a size of its own, so it is as small
// as can be, and must be grown before it is started; one in QEMU's format is to
// be started as it is, and what is empty takes no room in it.
func DiskSize(name string) int64 {
	const mib, virtual = 1 << 20, 10 << 30
	if filepath.Ext(name) == qcow2 {
		return virtual
	}
	return (install.ImageSize(sectorSize) + mib - 1) / mib * mib
}

const qcow2 = ".qcow2"

// WriteDisk writes the image of an installed disk of that size (0: DiskSize), raw
// or, when the name ends in .qcow2, in QEMU's format. What an installation leaves to the first
// boot is left to it here too.
func (r *Release) WriteDisk(ctx context.Context, name string, size int64) (written bool, err error) {
	if size == 0 {
		size = DiskSize(name)
	}
	write := func(temp string) error { return r.rawDisk(ctx, temp, size) }
	if filepath.Ext(name) == qcow2 {
		write = func(temp string) error { return r.qcow2Disk(ctx, temp, size) }
	}
	return r.write("disk"+filepath.Ext(name), name, write, fmt.Sprint(size))
}

func (r *Release) rawDisk(ctx context.Context, name string, size int64) (err error) {
	dir, err := os.MkdirTemp(filepath.Dir(name), ".disk.*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := r.installation(dir); err != nil {
		return err
	}
	source, err := install.OpenSource(dir)
	if err != nil {
		return err
	}
	defer source.Close()
	d, err := gpt.Create(name, size, sectorSize)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return install.Write(ctx, d, source, install.Options{SameIDs: true})
}

// installation puts what is installed into a folder, as the full initramfs has
// it.
func (r *Release) installation(dir string) error {
	root, err := filepath.Abs(r.Root)
	if err != nil {
		return err
	}
	if err := os.Symlink(root, filepath.Join(dir, install.RootFile)); err != nil {
		return err
	}
	kernel, err := r.DiskUKI()
	if err != nil {
		return err
	}
	loader, err := r.BootLoader()
	if err != nil {
		return err
	}
	files := map[string][]byte{install.KernelFile: kernel, install.LoaderFile: loader}
	if r.Keys != nil {
		for _, name := range secureboot.Enrolment {
			if data := r.Keys.Enrolment[name]; data != nil {
				files[filepath.Join(install.KeysFolder, name)] = data
			}
		}
	}
	if err := os.Mkdir(filepath.Join(dir, install.KeysFolder), 0o755); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r *Release) qcow2Disk(ctx context.Context, name string, size int64) error {
	raw := name + ".raw"
	defer os.Remove(raw)
	if err := r.rawDisk(ctx, raw, size); err != nil {
		return err
	}
	// One coroutine: the order of clusters must not depend on which is faster.
	return run(ctx, "qemu-img", "convert", "-q", "-m", "1", "-f", "raw", "-O", "qcow2", raw, name)
}
