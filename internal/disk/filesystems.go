package disk

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf16"
)

// xfs: the superblock of the first allocation group.
func xfs(w *window) *Volume {
	b := w.at(0, 512)
	if b == nil || string(b[:4]) != "XFSB" {
		return nil
	}
	block, sector := be.Uint32(b[4:]), be.Uint16(b[102:])
	if !power(uint64(block), 512, 65536) || !power(uint64(sector), 512, 32768) {
		return nil
	}
	return &Volume{
		Kind: "xfs", UUID: uuid(b[32:]), Label: text(b[108:120]), BlockSize: uint32(sector), FilesystemBlockSize: block,
		ProbedSize: product(be.Uint64(b[8:]), uint64(block)),
	}
}

// Features of ext file systems; what is in none of these sets makes it ext4.
const (
	extJournal    = 0x4  // compatible
	extJournalDev = 0x8  // incompatible
	ext64Bit      = 0x80 // incompatible
	ext3Incompat  = 0x16 // file types, recovery, meta block groups
	ext3ReadOnly  = 0x7  // sparse superblocks, large files, btree directories
)

// ext2, ext3 and ext4 differ in their features only.
func ext(w *window) *Volume {
	b := w.at(1024, 1024)
	if b == nil || le.Uint16(b[56:]) != 0xef53 || le.Uint32(b[24:]) > 6 {
		return nil
	}
	block := uint32(1024) << le.Uint32(b[24:])
	compat, incompat, readOnly := le.Uint32(b[92:]), le.Uint32(b[96:]), le.Uint32(b[100:])
	blocks := uint64(le.Uint32(b[4:]))
	if incompat&ext64Bit != 0 {
		blocks |= uint64(le.Uint32(b[336:])) << 32
	}
	kind := "ext2"
	switch {
	case incompat&extJournalDev != 0:
		kind = "jbd"
	case incompat&^uint32(ext3Incompat) != 0 || readOnly&^uint32(ext3ReadOnly) != 0:
		kind = "ext4"
	case compat&extJournal != 0:
		kind = "ext3"
	}
	return &Volume{
		Kind: kind, UUID: uuid(b[104:]), Label: text(b[120:136]), BlockSize: block, FilesystemBlockSize: block,
		ProbedSize: product(blocks, uint64(block)),
	}
}

func btrfs(w *window) *Volume {
	b := w.at(64<<10, 4096)
	if b == nil || string(b[64:72]) != "_BHRfS_M" {
		return nil
	}
	sector := le.Uint32(b[144:])
	return &Volume{Kind: "btrfs", UUID: uuid(b[32:]), Label: text(b[299:555]), BlockSize: sector, FilesystemBlockSize: sector, ProbedSize: le.Uint64(b[112:])}
}

func f2fs(w *window) *Volume {
	b := w.at(1024, 2048)
	if b == nil || le.Uint32(b) != 0xf2f52010 || le.Uint32(b[16:]) > 16 {
		return nil
	}
	block := uint32(1) << le.Uint32(b[16:])
	return &Volume{Kind: "f2fs", UUID: uuid(b[108:]), Label: wide(b[124 : 124+1024]), BlockSize: block, FilesystemBlockSize: block, ProbedSize: product(le.Uint64(b[36:]), uint64(block))}
}

func squashfs(w *window) *Volume {
	b := w.at(0, 96)
	if b == nil || string(b[:4]) != "hsqs" || le.Uint16(b[28:]) != 4 {
		return nil
	}
	block := le.Uint32(b[12:])
	return &Volume{Kind: "squashfs", BlockSize: 1024, FilesystemBlockSize: block, ProbedSize: le.Uint64(b[40:])}
}

// vfat is FAT with 12, 16 or 32 bits; the number of clusters tells which.
func vfat(w *window) *Volume {
	b := w.at(0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	sector, cluster, fats := uint64(le.Uint16(b[11:])), uint64(b[13]), uint64(b[16])
	reserved, rootEntries := uint64(le.Uint16(b[14:])), uint64(le.Uint16(b[17:]))
	media := b[21]
	if !power(sector, 512, 4096) || !power(cluster, 1, 128) || fats < 1 || fats > 2 || reserved == 0 || media != 0xf0 && media < 0xf8 {
		return nil
	}
	total, fat := uint64(le.Uint16(b[19:])), uint64(le.Uint16(b[22:]))
	if total == 0 {
		total = uint64(le.Uint32(b[32:]))
	}
	v := &Volume{Kind: "vfat", BlockSize: uint32(sector), FilesystemBlockSize: uint32(sector * cluster), ProbedSize: product(total, sector)}
	serial, label, extended := b[39:43], b[43:54], b[38]
	if fat == 0 { // 32 bits: fields further on, and the root is a file like others
		fat = uint64(le.Uint32(b[36:]))
		serial, label, extended = b[67:71], b[71:82], b[66]
		first := uint64(le.Uint32(b[44:]))
		if fat == 0 || first < 2 {
			return nil
		}
		start := (reserved + fats*fat + (first-2)*cluster) * sector
		v.Label = rootLabel(w.at(start, cluster*sector))
	} else {
		if rootEntries == 0 || total <= reserved+fats*fat {
			return nil
		}
		v.Label = rootLabel(w.at((reserved+fats*fat)*sector, rootEntries*32))
	}
	if v.Label == "" && extended == 0x29 && string(label) != "NO NAME    " { // 0x28: a serial number alone
		v.Label = strings.TrimRight(text(label), " ")
	}
	v.UUID = fmt.Sprintf("%02X%02X-%02X%02X", serial[3], serial[2], serial[1], serial[0])
	return v
}

// rootLabel finds the entry of a root directory that is its label.
func rootLabel(dir []byte) string {
	for ; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		const volumeID, longName, mask = 0x08, 0x0f, 0x3f
		if attr := dir[11]; dir[0] != 0xe5 && attr&mask != longName && attr&(volumeID|0x10) == volumeID {
			return strings.TrimRight(text(dir[:11]), " ")
		}
	}
	return ""
}

func exfat(w *window) *Volume {
	b := w.at(0, 512)
	if b == nil || string(b[3:11]) != "EXFAT   " || b[108] < 9 || b[108] > 12 {
		return nil
	}
	sector := uint32(1) << b[108]
	return &Volume{Kind: "exfat", UUID: fmt.Sprintf("%02X%02X-%02X%02X", b[103], b[102], b[101], b[100]), BlockSize: sector, ProbedSize: product(le.Uint64(b[72:]), uint64(sector))}
}

func ntfs(w *window) *Volume {
	b := w.at(0, 512)
	if b == nil || string(b[3:11]) != "NTFS    " || b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	sector := uint32(le.Uint16(b[11:]))
	return &Volume{Kind: "ntfs", UUID: fmt.Sprintf("%016X", le.Uint64(b[72:])), BlockSize: sector, ProbedSize: product(le.Uint64(b[40:]), uint64(sector))}
}

// iso9660: the primary volume descriptor (ECMA-119, 8.4). It has no id; the time
// when it was made stands for one, as other tools have it.
func iso9660(w *window) *Volume {
	b := w.at(32768, 2048)
	if b == nil || b[0] != 1 || string(b[1:6]) != "CD001" {
		return nil
	}
	block := uint32(le.Uint16(b[128:]))
	v := &Volume{Kind: "iso9660", Label: strings.TrimRight(text(b[40:72]), " "), BlockSize: block, FilesystemBlockSize: block, ProbedSize: product(uint64(le.Uint32(b[80:])), uint64(block))}
	for _, at := range []int{830, 813} { // modified, made
		if d := b[at : at+16]; digits(d) && !bytes.Equal(d, bytes.Repeat([]byte("0"), 16)) {
			v.UUID = fmt.Sprintf("%s-%s-%s-%s-%s-%s-%s", d[:4], d[4:6], d[6:8], d[8:10], d[10:12], d[12:14], d[14:16])
			break
		}
	}
	return v
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// swap: the mark is at the end of the first page, whose size is that of the
// machine that made it.
func swap(w *window) *Volume {
	for page := uint64(4096); page <= 64<<10; page *= 2 {
		if b := w.at(page-10, 10); b == nil || string(b) != "SWAPSPACE2" {
			continue
		}
		b := w.at(1024, 64)
		last := le.Uint32(b[4:])
		return &Volume{Kind: "swap", UUID: uuid(b[12:]), Label: text(b[28:44]), BlockSize: uint32(page), ProbedSize: product(uint64(last)+1, page)}
	}
	return nil
}

// wide is UTF-16 in a field of fixed length, up to the first NUL.
func wide(b []byte) string {
	var units []uint16
	for ; len(b) >= 2 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, le.Uint16(b))
	}
	return string(utf16.Decode(units))
}

// product is a size in bytes, 0 where it is too large to be one.
func product(n, unit uint64) uint64 {
	if unit == 0 || n > 1<<62/unit {
		return 0
	}
	return n * unit
}
