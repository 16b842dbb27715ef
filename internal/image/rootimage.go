package image

import (
	"fmt"
	"io"
	"os"

	"talos/internal/linux/atomicfile"
	"talos/internal/verity"
)

// WriteRootImage writes what lies in a root partition: the SquashFS file, zeros
// up to a whole block, its hash tree. What the kernel must be told about it goes
// to the file param. Nothing is done when both were made from the same file
// before.
func WriteRootImage(squashfs, name, param string) (written bool, err error) {
	sum, err := FileDigest(squashfs)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(param); err != nil {
		if err := os.RemoveAll(stampFile(name)); err != nil {
			return false, err
		}
	}
	return WriteOutput(name, "verity "+sum, func(temp string) error {
		p, err := writeWithTree(squashfs, temp)
		if err != nil {
			return fmt.Errorf("%s with its hash tree: %w", squashfs, err)
		}
		return atomicfile.Update(param, []byte(p.String()+"\n"), 0o644)
	})
}

func writeWithTree(data, name string) (p verity.Param, err error) {
	in, err := os.Open(data)
	if err != nil {
		return p, err
	}
	defer in.Close()
	out, err := os.Create(name)
	if err != nil {
		return p, err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	size, err := io.Copy(out, in)
	if err != nil {
		return p, err
	}
	if rest := size % verity.BlockSize; rest > 0 {
		n, err := out.Write(make([]byte, verity.BlockSize-rest))
		if err != nil {
			return p, err
		}
		size += int64(n)
	}
	return verity.Build(out, size, out)
}
