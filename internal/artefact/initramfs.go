package artefact

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"talos/internal/cpio"
	"talos/internal/uki"
	"talos/internal/verity"
)

// What initramfs archives begin with.
const (
	cpioMagic = "070701"
	zstdMagic = "\x28\xb5\x2f\xfd"
)

// Names in an initramfs, as internal/media puts them there.
const (
	initFile   = "init"
	rootFile   = "rootfs.img"
	installUKI = "install/talos.efi"
	installDir = "install/"
)

// initramfs checks what an initramfs holds. The kernel that it belongs to wants
// the root of want; without that the one for the disk says which. The result is
// the roots that were found.
func (c *checker) initramfs(part string, r *io.SectionReader, want *verity.Param) (found []string, err error) {
	files, err := listInitramfs(r)
	if err != nil {
		return nil, err
	}
	if !files.init {
		return nil, errors.New("there is no /init in the initramfs")
	}
	for _, f := range files.found {
		where := join(part, f.name)
		switch {
		case f.name == installUKI:
			if err := c.program(where, f.data); err != nil {
				return nil, err
			}
			image, err := uki.Open(f.data, f.data.Size())
			if err != nil {
				continue // said already
			}
			param, err := paramOf(image)
			switch {
			case err != nil: // said already
			case want == nil:
				want = &param
			case *want != param:
				c.add(where, "root", Failed, "it wants %s, the kernel that installs it %s", param, *want)
			}
		case len(f.name) > 4 && f.name[len(f.name)-4:] == ".efi":
			if err := c.program(where, f.data); err != nil {
				return nil, err
			}
		}
	}
	for _, f := range files.found {
		if f.name != rootFile {
			continue
		}
		found = append(found, f.name)
		if want == nil {
			c.add(join(part, f.name), "root", Skipped, "nothing says what it should be")
			continue
		}
		c.root(join(part, f.name), f.data, *want)
	}
	return found, nil
}

func join(part, name string) string {
	if part == "" {
		return "/" + name
	}
	return part + ":/" + name
}

// inInitramfs is what of an initramfs is looked at.
type inInitramfs struct {
	init  bool
	found []named
}

type named struct {
	name string
	data *io.SectionReader
}

// limits of what is read. A name that is there twice is refused: the last one
// counts for the kernel, and it need not be the one that was looked at.
const (
	maxArchives = 16
	maxFiles    = 10_000
	maxUnpacked = 256 << 20
)

// listInitramfs reads archives that follow each other. The compressed one is the
// last.
func listInitramfs(r *io.SectionReader) (inInitramfs, error) {
	var all inInitramfs
	seen := map[string]bool{}
	for range maxArchives {
		at, kind, err := nextArchive(r)
		if err != nil || kind == "" {
			return all, err
		}
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			return all, err
		}
		if kind == cpioMagic {
			if err := all.readArchive(r, r, seen); err != nil {
				return all, err
			}
			continue
		}
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
		if err != nil {
			return all, err
		}
		defer d.Close()
		return all, all.readArchive(io.LimitReader(d, maxUnpacked), nil, seen)
	}
	return all, fmt.Errorf("an initramfs of more than %d archives", maxArchives)
}

// nextArchive skips the zeros from where r is. At the end, kind is empty.
func nextArchive(r *io.SectionReader) (at int64, kind string, err error) {
	at, err = r.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, "", err
	}
	buf := make([]byte, 4096)
	for at < r.Size() {
		n, err := r.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, "", err
		}
		for i, b := range buf[:n] {
			if b == 0 {
				continue
			}
			head := make([]byte, len(cpioMagic))
			if n, err := r.ReadAt(head, at+int64(i)); n < len(zstdMagic) {
				return 0, "", fmt.Errorf("the initramfs ends early: %w", err)
			}
			switch {
			case string(head) == cpioMagic:
				return at + int64(i), cpioMagic, nil
			case string(head[:len(zstdMagic)]) == zstdMagic:
				return at + int64(i), zstdMagic, nil
			}
			return 0, "", fmt.Errorf("the initramfs has something at %d that is no archive", at+int64(i))
		}
		at += int64(n)
	}
	return 0, "", nil
}

// readArchive notes the files of one archive. Those that are looked at must be
// where they can be read again: in one that is not compressed.
func (all *inInitramfs) readArchive(r io.Reader, plain *io.SectionReader, seen map[string]bool) error {
	for a := cpio.NewReader(r); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if seen[h.Name] {
			return fmt.Errorf("the initramfs has /%s twice", h.Name)
		}
		if seen[h.Name] = true; len(seen) > maxFiles {
			return fmt.Errorf("an initramfs of more than %d files", maxFiles)
		}
		switch {
		case h.Name == initFile:
			all.init = true
		case !h.Mode.IsRegular():
		case h.Name == rootFile, len(h.Name) > len(installDir) && h.Name[:len(installDir)] == installDir:
			if plain == nil {
				return fmt.Errorf("/%s is in the compressed part of the initramfs", h.Name)
			}
			at, err := plain.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			all.found = append(all.found, named{h.Name, io.NewSectionReader(plain, at, h.Size)})
		}
	}
}
