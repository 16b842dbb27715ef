package disk

import (
	"fmt"
	"hash/crc32"
	"strings"
	"unicode"
)

// gpt is a table of UEFI 2.10, 5.3, whose checksums are right: the first one,
// or the copy at the end.
func gpt(w *window) *Volume {
	if w.size < 3*w.sector {
		return nil
	}
	if v := gptAt(w, 1); v != nil {
		return v
	}
	return gptAt(w, w.size/w.sector-1)
}

func gptAt(w *window, lba uint64) *Volume {
	b := w.at(lba*w.sector, w.sector)
	if b == nil || string(b[:8]) != "EFI PART" {
		return nil
	}
	size, sum := le.Uint32(b[12:]), le.Uint32(b[16:])
	if size < 92 || uint64(size) > w.sector || le.Uint64(b[24:]) != lba {
		return nil
	}
	zeroed := append([]byte(nil), b[:size]...)
	copy(zeroed[16:20], make([]byte, 4))
	if crc32.ChecksumIEEE(zeroed) != sum {
		return nil
	}
	count, each := uint64(le.Uint32(b[80:])), uint64(le.Uint32(b[84:]))
	if each < 128 || each > 4096 || count == 0 || count*each > 1<<20 || le.Uint64(b[72:]) > w.size/w.sector {
		return nil
	}
	entries := w.at(le.Uint64(b[72:])*w.sector, count*each)
	if entries == nil || crc32.ChecksumIEEE(entries) != le.Uint32(b[88:]) {
		return nil
	}
	first, last := le.Uint64(b[40:]), le.Uint64(b[48:])
	v := &Volume{Kind: "gpt", UUID: guid(b[56:]), BlockSize: uint32(w.sector)}
	if last >= first {
		v.ProbedSize = product(last-first+1, w.sector)
	}
	for i := range count {
		e := entries[i*each:]
		start, end := le.Uint64(e[32:]), le.Uint64(e[40:])
		if guid(e) == "" || end < start || start < first || end > last || end >= 1<<62/w.sector { // else it is no number of bytes
			continue
		}
		v.Table = append(v.Table, Entry{
			Number: int(i) + 1, Offset: start * w.sector, Size: (end - start + 1) * w.sector,
			Type: guid(e), UUID: guid(e[16:]), Label: harmless(wide(e[56:128])),
		})
	}
	return v
}

// harmless is a name that a terminal may be shown. What it would obey is not left
// out: another name must not become one that means something.
func harmless(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != ' ' {
			return '?'
		}
		return r
	}, name)
}

// mbr is a table of four partitions. Its mark is that of any boot sector, so
// its entries have to make sense too.
func mbr(w *window) *Volume {
	b := w.at(0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	v := &Volume{Kind: "mbr", BlockSize: uint32(w.sector)}
	if id := le.Uint32(b[440:]); id != 0 {
		v.UUID = fmt.Sprintf("%08x", id)
	}
	for i := range 4 {
		e := b[446+16*i:]
		start, size := uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		if e[0]&0x7f != 0 {
			return nil
		}
		if e[4] == 0 || size == 0 {
			continue
		}
		if start == 0 || start*w.sector >= w.size {
			return nil
		}
		p := Entry{Number: i + 1, Offset: start * w.sector, Size: size * w.sector, Type: fmt.Sprintf("%02x", e[4])}
		if v.UUID != "" {
			p.UUID = fmt.Sprintf("%s-%02x", v.UUID, i+1)
		}
		v.Table = append(v.Table, p)
	}
	if v.Table == nil {
		return nil // code without partitions, or a file system that was recognised
	}
	return v
}
