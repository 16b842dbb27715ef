package media

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"

	"talos/internal/secureboot"
)

// clusterSize is that of FAT16 up to 256 MiB.
const clusterSize = 4096

// fatFile is a file of a FAT file system.
type fatFile struct {
	name string
	data []byte
}

// writeFAT makes a FAT16 file system of that size in a file: UEFI takes it on
// removable media, and it may be a tenth of the smallest FAT32 with such
// clusters. Bytes depend on the arguments alone.
func writeFAT(ctx context.Context, name string, size int64, label string, id uint32, files []fatFile) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := run(ctx, "mkfs.vfat", "--invariant", "-F", "16", "-s", fmt.Sprint(clusterSize/512),
		"-n", label, "-i", fmt.Sprintf("%08x", id), name); err != nil {
		return err
	}
	source, err := os.MkdirTemp(filepath.Dir(name), ".fat.*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(source)
	var made []string
	for _, file := range files {
		for _, dir := range parents(file.name) {
			if slices.Contains(made, dir) {
				continue
			}
			if err := run(ctx, "mmd", "-i", name, "::"+dir); err != nil {
				return err
			}
			made = append(made, dir)
		}
		from := filepath.Join(source, "file")
		if err := os.WriteFile(from, file.data, 0o644); err != nil {
			return err
		}
		if err := run(ctx, "mcopy", "-i", name, from, "::"+file.name); err != nil {
			return err
		}
	}
	return nil
}

// parents lists the folders above a file, the outermost first.
func parents(name string) []string {
	var dirs []string
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}

// fatSize is that of a file system with room for the files and their folders.
// FAT16 has 4085 clusters or more, and fewer than 65525.
func fatSize(files []fatFile) int64 {
	clusters := int64(1)
	for _, f := range files {
		clusters += int64(len(f.data))/clusterSize + 1 + int64(len(parents(f.name)))
	}
	const mebi = 1 << 20
	size := max(clusters, 4096)*(clusterSize+2*2) + mebi // and boot sectors, root folder
	return (size + mebi - 1) / mebi * mebi
}

// enrolFiles are those by which the boot loader, or its user, hands the keys to
// the firmware.
func (r *Release) enrolFiles() []fatFile {
	var files []fatFile
	if r.Keys == nil {
		return nil
	}
	for _, name := range secureboot.Enrolment {
		if data := r.Keys.Enrolment[name]; data != nil {
			files = append(files, fatFile{"loader/keys/auto/" + name, data})
		}
	}
	return files
}

// run starts one of Debian's programs with nothing of our environment but the
// path, and the time that media say they were made at.
func run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "LC_ALL=C", "TZ=UTC", "MTOOLS_SKIP_CHECK=1", "SOURCE_DATE_EPOCH=" + fmt.Sprint(mediaTime)}
	if program == "mkfs.vfat" {
		if path, err := exec.LookPath("/usr/sbin/mkfs.vfat"); err == nil {
			cmd.Path, cmd.Err = path, nil
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, bytes.TrimSpace(out))
	}
	return nil
}

// mediaTime is when all files on media were made, in seconds since 1970: the
// first that FAT can say.
const mediaTime = 315532800
