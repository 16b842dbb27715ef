package qemu

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// CopyImage copies a file with its holes, into place only when it is whole.
func CopyImage(dst, src string) error {
	if err := tryCopy(dst+".tmp", src); err != nil {
		return errors.Join(fmt.Errorf("copy %s to %s: %w", src, dst, err), os.Remove(dst+".tmp"))
	}
	return os.Rename(dst+".tmp", dst)
}

func tryCopy(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copyData(out, in), out.Close())
}

// copyData copies the parts of a file that are data.
func copyData(out, in *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		data, err := in.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole is left
			break
		}
		if err != nil {
			return err
		}
		hole, err := in.Seek(data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := in.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, hole-data); err != nil { // copy_file_range
			return err
		}
		at = hole
	}
	return out.Truncate(info.Size())
}
