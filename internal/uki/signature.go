package uki

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// SignatureFields says where a program for the firmware has its signatures, and
// the two fields that no signature covers.
type SignatureFields struct {
	Checksum  int64 // offset of 4 bytes
	Directory int64 // offset of 8 bytes that say where Table is, and TableSize
	// The table of certificates ends the file. TableSize is 0 without one.
	Table, TableSize int64
}

// Signature finds the fields in a file of that size. A file in which parts of
// the sections' data overlap or leave gaps is refused: firmwares don't agree on
// what a signature of it covers.
func Signature(r io.ReaderAt, size int64) (SignatureFields, error) {
	h, head, err := readHeaders(r, size)
	if err != nil {
		return SignatureFields{}, err
	}
	optional := head[h.optional():]
	if h.optionalLen < certificatesAt+8 || binary.LittleEndian.Uint32(optional[directories:]) < 5 {
		return SignatureFields{}, fmt.Errorf("%w: it has no place for a signature", ErrFormat)
	}
	if !h.seamless() {
		return SignatureFields{}, fmt.Errorf("%w: its sections overlap or leave gaps", ErrFormat)
	}
	f := SignatureFields{
		Checksum:  int64(h.optional() + checksumAt),
		Directory: int64(h.optional() + certificatesAt),
		Table:     int64(binary.LittleEndian.Uint32(optional[certificatesAt:])),
		TableSize: int64(binary.LittleEndian.Uint32(optional[certificatesAt+4:])),
	}
	switch {
	case f.Table == 0 && f.TableSize == 0:
		f.Table = size
	case f.Table < int64(h.dataEnd) || f.Table%8 != 0 || f.Table+f.TableSize != size:
		return SignatureFields{}, fmt.Errorf("%w: its signatures are not at its end", ErrFormat)
	}
	return f, nil
}

func (h *headers) seamless() bool {
	table := slices.SortedFunc(slices.Values(h.table), func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	end := h.headersLen
	for _, p := range table {
		if p.raw == 0 {
			continue
		}
		if p.at != end {
			return false
		}
		end += p.raw
	}
	return true
}
