package media

import (
	"bytes"
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"

	"talos/internal/cpio"
	"talos/internal/image"
	"talos/internal/linux/atomicfile"
	"talos/internal/secureboot"
)

// Files of the initramfs. All but init are there only when the root comes with
// it: from an ISO, over the network, handed in by a hypervisor.
const (
	InitFile          = "init"
	RootFile          = "rootfs.img"
	InstallUKI        = "install/talos.efi"           // for the disk, with the initramfs of init alone
	InstallLoader     = "install/systemd-bootx64.efi" // for the disk
	InstallSecureBoot = "install/secureboot"          // folder of .auth files, with keys for Secure Boot only
)

// WriteInitramfs writes the archive that holds the program init, compressed.
func WriteInitramfs(init, name string) (written bool, err error) {
	stamp, err := stampOf("initramfs", nil, init)
	if err != nil {
		return false, err
	}
	return image.WriteOutput(name, stamp, func(temp string) error {
		b, err := initramfs(init)
		if err != nil {
			return err
		}
		return os.WriteFile(temp, b, 0o644)
	})
}

func initramfs(init string) ([]byte, error) {
	program, err := os.ReadFile(init)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	// One goroutine: the bytes must not depend on the number of processors. The
	// window is one that the kernel takes.
	enc, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return nil, err
	}
	w := cpio.NewWriter(enc)
	if err := w.Data(InitFile, 0o755, program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// FullInitramfs is an archive of the root and all that an installation needs,
// as it is (it is compressed already), and the one of init behind it.
func (r *Release) FullInitramfs() ([]byte, error) {
	kernel, err := r.DiskUKI()
	if err != nil {
		return nil, err
	}
	loader, err := r.BootLoader()
	if err != nil {
		return nil, err
	}
	root, err := os.ReadFile(r.Root)
	if err != nil {
		return nil, err
	}
	if p, err := r.Param(); err != nil {
		return nil, err
	} else if p.Size() != int64(len(root)) {
		return nil, fmt.Errorf("%s has %d bytes, and %s says %d", r.Root, len(root), r.rootParam(), p.Size())
	}
	small, err := os.ReadFile(r.Initramfs)
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(make([]byte, 0, len(root)+len(kernel)+len(loader)+len(small)+1<<20))
	w := cpio.NewWriter(out)
	files := []error{
		w.Data(RootFile, 0o600, root), w.Dir("install", 0o700),
		w.Data(InstallUKI, 0o600, kernel), w.Data(InstallLoader, 0o600, loader),
	}
	if r.Keys != nil && len(r.Keys.Enrolment) > 0 {
		files = append(files, w.Dir(InstallSecureBoot, 0o700))
		for _, name := range secureboot.Enrolment {
			files = append(files, w.Data(InstallSecureBoot+"/"+name, 0o600, r.Keys.Enrolment[name]))
		}
	}
	for _, err := range append(files, w.Close()) {
		if err != nil {
			return nil, err
		}
	}
	out.Write(small)
	return out.Bytes(), nil
}

// WriteFullInitramfs writes FullInitramfs to a file, and the kernel's command
// line for it to another.
func (r *Release) WriteFullInitramfs(name, cmdline string) (written bool, err error) {
	line, err := r.CommandLine()
	if err != nil {
		return false, err
	}
	if err := atomicfile.Update(cmdline, []byte(line+"\n"), 0o644); err != nil {
		return false, err
	}
	return r.write("initramfs", name, func(temp string) error {
		b, err := r.FullInitramfs()
		if err != nil {
			return err
		}
		return os.WriteFile(temp, b, 0o644)
	})
}
