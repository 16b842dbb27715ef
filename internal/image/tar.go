package image

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// epoch is the time of every file: a real one would make each build differ.
var epoch = time.Unix(0, 0)

func writeTar(w io.Writer, t *Tree) error {
	tw := tar.NewWriter(w)
	for _, name := range t.paths() {
		if err := writeEntry(tw, name, t.entries[name]); err != nil {
			return fmt.Errorf("pack /%s: %w", name, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, name string, e entry) error {
	h := &tar.Header{
		Name:    name,
		Mode:    int64(e.mode.Perm()),
		Uid:     e.uid,
		Gid:     e.gid,
		ModTime: epoch,
	}
	if e.mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case e.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return tw.WriteHeader(h)
	case e.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.target
		return tw.WriteHeader(h)
	case e.source != "":
		return writeFile(tw, h, e.source)
	}
	h.Typeflag, h.Size = tar.TypeReg, int64(len(e.data))
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(e.data)
	return err
}

func writeFile(tw *tar.Writer, h *tar.Header, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "pack", Path: source, Err: fmt.Errorf("is a %v", info.Mode().Type())}
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
