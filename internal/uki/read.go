package uki

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxHeaders is how much of a file is read to find its sections.
const maxHeaders = 64 << 10

// File is an image that is being read.
type File struct {
	r     io.ReaderAt
	table []placed
}

// Open finds the sections of an image of that size.
func Open(r io.ReaderAt, size int64) (*File, error) {
	h, _, err := readHeaders(r, size)
	if err != nil {
		return nil, err
	}
	return &File{r, h.table}, nil
}

func readHeaders(r io.ReaderAt, size int64) (h *headers, head []byte, err error) {
	head = make([]byte, max(0, min(size, maxHeaders)))
	if n, err := r.ReadAt(head, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(head)) {
		return nil, nil, err
	}
	h, err = parse(head, size)
	return h, head, err
}

// Section is the content of a section. The error for one that is not there, or
// that is there twice, says so.
func (f *File) Section(name string) (*io.SectionReader, error) {
	var found *io.SectionReader
	for _, p := range f.table {
		if p.name != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("the image has more than one section %s", name)
		}
		found = io.NewSectionReader(f.r, int64(p.at), int64(p.size))
	}
	if found == nil {
		return nil, fmt.Errorf("the image has no section %s", name)
	}
	return found, nil
}

// maxText is the size of a section that holds text.
const maxText = 64 << 10

// Text is the content of a section that holds text, without what the stub takes
// off its end.
func (f *File) Text(name string) (string, error) {
	s, err := f.Section(name)
	if err != nil {
		return "", err
	}
	if s.Size() > maxText {
		return "", fmt.Errorf("section %s has %d bytes, want %d at most", name, s.Size(), maxText)
	}
	b, err := io.ReadAll(s)
	return strings.TrimRight(string(b), "\x00\n"), err
}

// Has says whether there is such a section.
func (f *File) Has(name string) bool {
	for _, p := range f.table {
		if p.name == name {
			return true
		}
	}
	return false
}
