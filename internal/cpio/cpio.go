// Package cpio writes and reads archives in the form "newc", the one that the
// kernel unpacks as its initramfs.
//
// An archive that is written depends on nothing but what was asked for: every
// owner is 0, every time is 0, inodes count up. Only folders and regular files are
// written; anything else that is read has the mode fs.ModeIrregular. Neither Writer nor Reader is safe for
// concurrent use.
package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"
)

const (
	magic     = "070701"
	headerLen = 110
	trailer   = "TRAILER!!!"
	maxName   = 4096
)

// File types in a mode, as in stat(2).
const (
	typeMask = 0o170000
	typeDir  = 0o040000
	typeFile = 0o100000
)

// ErrFormat says that bytes are no such archive.
var ErrFormat = errors.New("not a newc archive")

// Header describes a file.
type Header struct {
	Name string // relative, without a leading slash
	Mode fs.FileMode
	Size int64
}

// Writer writes an archive.
type Writer struct {
	w     io.Writer
	inode uint32
	left  int64 // of the current file
	pad   int64 // behind it
}

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Dir adds a folder.
func (w *Writer) Dir(name string, perm fs.FileMode) error {
	return w.header(Header{Name: name}, typeDir|uint32(perm.Perm()), 2)
}

// File adds a file; exactly size bytes must be written next.
func (w *Writer) File(name string, perm fs.FileMode, size int64) error {
	if size < 0 || size > math.MaxUint32 {
		return fmt.Errorf("cpio: %s: %d bytes don't fit into the format", name, size)
	}
	return w.header(Header{Name: name, Size: size}, typeFile|uint32(perm.Perm()), 1)
}

// Data adds a file with that content.
func (w *Writer) Data(name string, perm fs.FileMode, data []byte) error {
	if err := w.File(name, perm, int64(len(data))); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func (w *Writer) header(h Header, mode uint32, links int) error {
	if err := w.endFile(); err != nil {
		return err
	}
	w.inode++
	head := fmt.Sprintf("%s%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", magic,
		w.inode, mode, 0, 0, links, 0, h.Size, 0, 0, 0, 0, len(h.Name)+1, 0, h.Name)
	w.left, w.pad = 0, 0
	if err := w.write([]byte(head + strings.Repeat("\x00", padding(int64(len(head)))))); err != nil {
		return err
	}
	w.left, w.pad = h.Size, int64(padding(h.Size))
	return nil
}

// Write adds to the file that was begun last.
func (w *Writer) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, fmt.Errorf("cpio: %d bytes more than the file was said to have", int64(len(p))-w.left)
	}
	w.left -= int64(len(p))
	return len(p), w.write(p)
}

func (w *Writer) endFile() error {
	if w.left > 0 {
		return fmt.Errorf("cpio: the file lacks %d bytes", w.left)
	}
	return w.write(make([]byte, w.pad))
}

func (w *Writer) write(p []byte) error {
	_, err := w.w.Write(p)
	return err
}

// Close ends the archive. Further archives may follow in the same stream.
func (w *Writer) Close() error {
	return w.header(Header{Name: trailer}, 0, 1)
}

// padding is what is missing to a multiple of four.
func padding(n int64) int { return int(-n & 3) }

// Reader reads one archive.
type Reader struct {
	r    io.Reader
	left int64
	pad  int64
}

// NewReader reads from r. It takes no byte behind the archive's end.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next goes to the next file. At the archive's end the error is io.EOF.
func (r *Reader) Next() (Header, error) {
	if _, err := io.CopyN(io.Discard, r.r, r.left+r.pad); err != nil {
		return Header{}, unexpected(err)
	}
	r.left, r.pad = 0, 0
	head := make([]byte, headerLen)
	if _, err := io.ReadFull(r.r, head); err != nil {
		return Header{}, unexpected(err)
	}
	field, err := fields(head)
	if err != nil {
		return Header{}, err
	}
	nameLen := int64(field[11])
	if nameLen < 2 || nameLen > maxName {
		return Header{}, fmt.Errorf("%w: a name of %d bytes", ErrFormat, nameLen)
	}
	name := make([]byte, nameLen+int64(padding(headerLen+nameLen)))
	if _, err := io.ReadFull(r.r, name); err != nil {
		return Header{}, unexpected(err)
	}
	if i := bytes.IndexByte(name, 0); int64(i) != nameLen-1 {
		return Header{}, fmt.Errorf("%w: a name that does not end where it should", ErrFormat)
	}
	h := Header{Name: string(name[:nameLen-1]), Mode: fileMode(field[1]), Size: int64(field[6])}
	if h.Name == trailer {
		return Header{}, io.EOF
	}
	r.left, r.pad = h.Size, int64(padding(h.Size))
	return h, nil
}

// Read reads from the current file.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	if r.left -= int64(n); r.left > 0 {
		err = unexpected(err)
	}
	return n, err
}

// unexpected is for ends where the archive goes on.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func fields(head []byte) (f [13]uint32, err error) {
	if string(head[:len(magic)]) != magic {
		return f, fmt.Errorf("%w: it begins with %q", ErrFormat, head[:len(magic)])
	}
	for i := range f {
		at := len(magic) + 8*i
		n, err := strconv.ParseUint(string(head[at:at+8]), 16, 32)
		if err != nil {
			return f, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		f[i] = uint32(n)
	}
	return f, nil
}

func fileMode(mode uint32) fs.FileMode {
	perm := fs.FileMode(mode & 0o777)
	switch mode & typeMask {
	case typeFile:
		return perm
	case typeDir:
		return fs.ModeDir | perm
	}
	return fs.ModeIrregular | perm
}
