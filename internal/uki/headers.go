package uki

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Offsets in the headers of a PE32+ file, from the specification "PE Format".
const (
	dosHeaderLen   = 0x40
	dosNewHeader   = 0x3c // where the file header begins
	fileHeaderLen  = 24   // with the signature before it
	sectionCount   = 6    // in the file header, as the next
	symbolTable    = 12
	symbolCount    = 16
	optionalLen    = 20
	initializedLen = 8 // in the optional header, as the next
	sectionAlign   = 32
	fileAlign      = 36
	imageLen       = 56
	headersLen     = 60
	checksumAt     = 64
	directories    = 108 // how many follow
	minOptionalLen = 112
	certificatesAt = 144 // the fifth directory
	sectionLen     = 40
	magicPE32Plus  = 0x20b
)

// headers is what of a PE file's headers matters here.
type headers struct {
	file        int // offset of the signature before the file header
	optionalLen int
	sections    int
	headersLen  int
	fileAlign   int
	dataEnd     int // of what the sections have in the file
	memoryEnd   int
	names       map[string]bool
	table       []placed
}

// placed is where a section's data are.
type placed struct {
	name     string
	at, size int // size leaves out the padding
	raw      int // and this includes it
}

func (h *headers) optional() int   { return h.file + fileHeaderLen }
func (h *headers) tableStart() int { return h.optional() + h.optionalLen }
func (h *headers) tableEnd() int   { return h.tableStart() + h.sections*sectionLen }

// parse reads the headers at the start of a file of that size. Every number is
// checked against what is there.
func parse(b []byte, size int64) (*headers, error) {
	if len(b) < dosHeaderLen || string(b[:2]) != "MZ" {
		return nil, ErrFormat
	}
	h := &headers{file: int(binary.LittleEndian.Uint32(b[dosNewHeader:])), names: map[string]bool{}}
	if h.file > len(b)-fileHeaderLen || string(b[h.file:h.file+4]) != "PE\x00\x00" {
		return nil, ErrFormat
	}
	h.sections = int(binary.LittleEndian.Uint16(b[h.file+sectionCount:]))
	h.optionalLen = int(binary.LittleEndian.Uint16(b[h.file+optionalLen:]))
	if h.optionalLen < minOptionalLen || h.tableEnd() > len(b) {
		return nil, fmt.Errorf("%w: its headers end early", ErrFormat)
	}
	optional := b[h.optional():]
	if binary.LittleEndian.Uint16(optional) != magicPE32Plus {
		return nil, ErrFormat
	}
	h.headersLen = int(binary.LittleEndian.Uint32(optional[headersLen:]))
	h.fileAlign = int(binary.LittleEndian.Uint32(optional[fileAlign:]))
	align := int(binary.LittleEndian.Uint32(optional[sectionAlign:]))
	if h.headersLen > len(b) || h.headersLen < h.tableEnd() || !powerOfTwo(h.fileAlign) || !powerOfTwo(align) {
		return nil, fmt.Errorf("%w: its headers contradict each other", ErrFormat)
	}
	h.dataEnd, h.memoryEnd = h.headersLen, h.headersLen
	for i := range h.sections {
		h.section(b[h.tableStart()+i*sectionLen:])
	}
	if int64(h.dataEnd) > size {
		return nil, fmt.Errorf("%w: it ends before its last section does", ErrFormat)
	}
	return h, nil
}

// powerOfTwo also says that an alignment is no larger than a page.
func powerOfTwo(n int) bool { return n > 0 && n <= pageSize && n&(n-1) == 0 }

func (h *headers) section(b []byte) {
	name, _, _ := bytes.Cut(b[:8], []byte{0})
	size := int(binary.LittleEndian.Uint32(b[8:]))
	memory := int(binary.LittleEndian.Uint32(b[12:]))
	raw := int(binary.LittleEndian.Uint32(b[16:]))
	at := int(binary.LittleEndian.Uint32(b[20:]))
	h.names[string(name)] = true
	h.table = append(h.table, placed{string(name), at, min(size, raw), raw})
	h.dataEnd = max(h.dataEnd, at+raw)
	h.memoryEnd = max(h.memoryEnd, memory+max(size, raw))
}
