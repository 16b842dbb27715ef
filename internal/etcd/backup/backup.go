// Package backup knows the form of an etcd snapshot file: a database, in pages,
// and after it the SHA-256 checksum that etcd appends when it streams one.
//
// It reads such files as streams and judges whether they are whole; what is in
// the database is etcd's own matter. It holds no state.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
)

// Errors that callers tell apart.
var (
	// ErrDamaged says that a file is a snapshot, but not as etcd wrote it.
	ErrDamaged = errors.New("the snapshot is damaged")
	// ErrNoSnapshot says that a file is something else.
	ErrNoSnapshot = errors.New("this is no etcd snapshot")
	// ErrNoChecksum says that there is a database, but no checksum after it: a
	// copy of a member's file.
	ErrNoChecksum = errors.New("there is no checksum at its end: it is a member's database file, or cut off; a restore without the check is --recover-skip-hash-check")
)

const (
	page       = 512 // sizes of databases are multiples of it
	magicAt    = 16  // in the first page, after its header
	magic      = 0xED0CDAED
	smallest   = 4 * 4096 // of an empty database
	sumLength  = sha256.Size
	copyBuffer = 256 << 10
)

// Copy copies a snapshot and judges it: the error is nil only if all of it is
// there and the checksum is right. It keeps only a buffer in memory.
func Copy(to io.Writer, from io.Reader) (int64, error) {
	v := verifier{sum: sha256.New()}
	n, err := io.CopyBuffer(io.MultiWriter(to, &v), struct{ io.Reader }{from}, make([]byte, copyBuffer))
	if err != nil {
		return n, err
	}
	return n, v.verdict()
}

// Verify judges a snapshot.
func Verify(from io.Reader) error {
	_, err := Copy(io.Discard, from)
	return err
}

// VerifyFile judges a file; unchecked, only whether it is a database at all.
func VerifyFile(path string, unchecked bool) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := Verify(file); err != nil && (!unchecked || errors.Is(err, ErrNoSnapshot)) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// verifier takes a stream and keeps back its last bytes, which may be the sum.
type verifier struct {
	sum  hash.Hash
	head []byte // the first bytes, as far as the magic number
	tail []byte // at most sumLength
	size int64
}

func (v *verifier) Write(p []byte) (int, error) {
	if missing := magicAt + 4 - len(v.head); missing > 0 {
		v.head = append(v.head, p[:min(missing, len(p))]...)
	}
	v.size += int64(len(p))
	v.tail = append(v.tail, p...)
	if done := len(v.tail) - sumLength; done > 0 {
		v.sum.Write(v.tail[:done])
		v.tail = append(v.tail[:0], v.tail[done:]...)
	}
	return len(p), nil
}

func (v *verifier) verdict() error {
	switch {
	case len(v.head) < magicAt+4 || binary.LittleEndian.Uint32(v.head[magicAt:]) != magic:
		return ErrNoSnapshot
	case v.size%page == 0:
		return ErrNoChecksum
	case v.size%page != sumLength || v.size < smallest:
		return fmt.Errorf("%w: %d bytes is no size of one, it is cut off", ErrDamaged, v.size)
	case !bytes.Equal(v.sum.Sum(nil), v.tail):
		return fmt.Errorf("%w: its checksum is %x, its content has %x", ErrDamaged, v.tail, v.sum.Sum(nil))
	}
	return nil
}

// Save writes a snapshot to a file that appears only when it is whole.
func Save(path string, from io.Reader) (size int64, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	size, err = Copy(file, from)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return size, fmt.Errorf("save %s: %w", path, err)
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return size, err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return size, nil // it is there; whether it outlives a power cut is the file system's matter
	}
	// Some file systems refuse to sync a folder.
	_ = folder.Sync()
	return size, folder.Close()
}
