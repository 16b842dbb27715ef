package media

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/image"
	"talos/internal/verity"
)

// VolumeLabel names the ISO and its boot file system.
const VolumeLabel = "TALOS"

// WriteISO writes an ISO that machines with UEFI start from a DVD and from a
// USB stick. The firmware finds one program on it, the unified kernel image with
// the full initramfs, in a FAT file system that is both the El Torito image and
// a partition.
func (r *Release) WriteISO(ctx context.Context, name string) (written bool, err error) {
	return r.write("iso", name, func(temp string) error { return r.iso(ctx, temp) })
}

func (r *Release) iso(ctx context.Context, name string) error {
	param, err := r.Param()
	if err != nil {
		return err
	}
	initramfs, err := r.FullInitramfs()
	if err != nil {
		return err
	}
	kernel, err := r.UKI(initramfs)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(name), ".iso.*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	boot, tree := filepath.Join(work, "boot.img"), filepath.Join(work, "tree")
	files := append([]fatFile{{"EFI/BOOT/BOOTX64.EFI", kernel}}, r.enrolFiles()...)
	if err := writeFAT(ctx, boot, fatSize(files), VolumeLabel, volumeID(param.Root), files); err != nil {
		return fmt.Errorf("boot file system: %w", err)
	}
	// What a person sees who looks at the ISO.
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "os-release"), []byte(image.OSRelease(r.Tag)), 0o644); err != nil {
		return err
	}
	return run(ctx, "xorriso", "-no_rc", "-as", "mkisofs", "-quiet",
		"-o", name, "-V", VolumeLabel, "-A", "TALOS "+r.Tag, "-p", "TALOS IMAGER", "-R",
		"--modification-date="+mediaDate, "--set_all_file_dates", fmt.Sprintf("=%d", mediaTime),
		"--gpt_disk_guid", strings.ReplaceAll(deriveID(param.Root, "iso"), "-", ""),
		"-append_partition", "1", "0xef", boot, "-appended_part_as_gpt", "-partition_offset", "16",
		"-e", "--interval:appended_partition_1:all::", "-no-emul-boot",
		"-uid", "0", "-gid", "0", tree)
}

// mediaDate is mediaTime as xorriso wants it.
const mediaDate = "1980010100000000"

// volumeID is that of a FAT file system beside a root.
func volumeID(root verity.Root) uint32 { return binary.BigEndian.Uint32(root[16:]) }
