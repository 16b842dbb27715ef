// Package uki writes and reads unified kernel images: one program for the
// firmware that holds a kernel, its initramfs and its command line, so that one
// signature covers them all.
//
// The program is systemd's stub; the rest are sections that it looks for by
// name in its own image. The package appends them and finds them again. It signs
// nothing (internal/secureboot does), and it keeps no state: its functions are
// safe for concurrent use.
package uki

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Sections that the stub knows.
const (
	OSRelease     = ".osrel"
	CommandLine   = ".cmdline"
	KernelRelease = ".uname"
	Kernel        = ".linux"
	Initrd        = ".initrd"
)

// Section is one of the parts of an image.
type Section struct {
	Name string
	Data []byte
}

const (
	// pageSize keeps sections apart in memory, whatever smaller alignment the
	// stub allows.
	pageSize = 4096
	// readOnlyData is IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ.
	readOnlyData = 0x40000040
)

// ErrFormat says that bytes are no program for the firmware.
var ErrFormat = errors.New("not a PE32+ image")

// Build appends sections to the stub, in their order. Each begins a page in
// memory, behind all that the stub has. What it makes depends on nothing but
// what it was given.
func Build(stub []byte, sections ...Section) ([]byte, error) {
	h, err := parse(stub, int64(len(stub)))
	if err != nil {
		return nil, fmt.Errorf("stub: %w", err)
	}
	if room := (h.headersLen - h.tableEnd()) / sectionLen; room < len(sections) {
		return nil, fmt.Errorf("stub: its headers have room for %d more sections, want %d", room, len(sections))
	}
	total := h.dataEnd
	for _, s := range sections {
		total += len(s.Data) + h.fileAlign
	}
	if total > math.MaxInt32 {
		return nil, fmt.Errorf("an image of %d bytes is too large", total)
	}
	// What the stub has behind its sections are symbols, which nobody needs.
	out := append(make([]byte, 0, total), stub[:h.dataEnd]...)
	at, memory, table := h.dataEnd, h.memoryEnd, h.tableEnd()
	var added int
	for _, s := range sections {
		out = append(out, make([]byte, up(at, h.fileAlign)-at)...)
		at, memory = len(out), up(memory, pageSize)
		raw := up(len(s.Data), h.fileAlign)
		if err := h.sectionHeader(out[table:], s, memory, at, raw); err != nil {
			return nil, err
		}
		out = append(append(out, s.Data...), make([]byte, raw-len(s.Data))...)
		at, memory, table, added = len(out), memory+len(s.Data), table+sectionLen, added+raw
	}
	h.finish(out, len(sections), memory, added)
	return out, nil
}

func (h *headers) sectionHeader(b []byte, s Section, memory, at, raw int) error {
	if len(s.Name) > 8 || s.Name == "" {
		return fmt.Errorf("section %q: want a name of 1 to 8 bytes", s.Name)
	}
	if h.names[s.Name] {
		return fmt.Errorf("section %s is there twice", s.Name)
	}
	h.names[s.Name] = true
	b = b[:sectionLen]
	clear(b)
	copy(b, s.Name)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(s.Data)))
	binary.LittleEndian.PutUint32(b[12:], uint32(memory))
	binary.LittleEndian.PutUint32(b[16:], uint32(raw))
	binary.LittleEndian.PutUint32(b[20:], uint32(at))
	binary.LittleEndian.PutUint32(b[36:], readOnlyData)
	return nil
}

// finish brings the headers up to date.
func (h *headers) finish(out []byte, sections, memory, added int) {
	file, optional := out[h.file:], out[h.optional():]
	binary.LittleEndian.PutUint16(file[sectionCount:], uint16(h.sections+sections))
	binary.LittleEndian.PutUint32(file[symbolTable:], 0)
	binary.LittleEndian.PutUint32(file[symbolCount:], 0)
	had := binary.LittleEndian.Uint32(optional[initializedLen:])
	binary.LittleEndian.PutUint32(optional[initializedLen:], had+uint32(added))
	binary.LittleEndian.PutUint32(optional[imageLen:], uint32(up(memory, pageSize)))
	if h.optionalLen >= certificatesAt+8 {
		clear(optional[certificatesAt : certificatesAt+8]) // a signature of the stub alone
	}
	binary.LittleEndian.PutUint32(optional[checksumAt:], 0)
	binary.LittleEndian.PutUint32(optional[checksumAt:], Checksum(out))
}

// Checksum is what belongs into a PE file's checksum field when that is zero:
// the sum of its 16-bit words with carries added, and its length.
func Checksum(b []byte) uint32 {
	var sum uint64
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint64(binary.LittleEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint64(b[len(b)-1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint32(sum) + uint32(len(b))
}

func up(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }
