package disk

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// raid is a member of a Linux RAID; its superblock is at one of four places.
func raid(w *window) *Volume {
	const magic = 0xa92b4efc
	for _, off := range []uint64{4096, 0, (w.size/512 - min(w.size/512, 16)) &^ 7 * 512} { // versions 1.2, 1.1, 1.0
		if b := w.at(off, 256); b != nil && le.Uint32(b) == magic && le.Uint32(b[4:]) == 1 && le.Uint64(b[144:]) == off/512 {
			return &Volume{Kind: "linux_raid_member", UUID: uuid(b[16:]), Label: text(b[32:64])}
		}
	}
	if w.size < 128<<10 {
		return nil
	}
	b := w.at(w.size&^(64<<10-1)-64<<10, 256) // version 0.90
	if b == nil || le.Uint32(b) != magic || le.Uint32(b[4:]) != 0 {
		return nil
	}
	id := make([]byte, 0, 16)
	for _, at := range []int{20, 52, 56, 60} { // in four words, of the host's order
		id = be.AppendUint32(id, le.Uint32(b[at:]))
	}
	return &Volume{Kind: "linux_raid_member", UUID: uuid(id)}
}

var textUUID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)

func luks(w *window) *Volume {
	b := w.at(0, 512)
	if b == nil || string(b[:6]) != "LUKS\xba\xbe" {
		return nil
	}
	v := &Volume{Kind: "luks", UUID: textUUID.FindString(text(b[168:208]))}
	switch be.Uint16(b[6:]) {
	case 1:
		return v
	case 2:
		v.Label = text(b[24:72])
		return v
	}
	return nil
}

// lvm is a physical volume; its label is in one of the first four sectors.
func lvm(w *window) *Volume {
	for sector := range uint64(4) {
		b := w.at(sector*512, 512)
		if b == nil || string(b[:8]) != "LABELONE" || string(b[24:32]) != "LVM2 001" || le.Uint64(b[8:]) != sector {
			continue
		}
		at := le.Uint32(b[20:])
		if at < 32 || at > 512-40 || le.Uint32(b[16:]) != lvmSum(b[20:]) {
			continue
		}
		id := b[at : at+32]
		var groups []string
		for _, n := range []int{6, 4, 4, 4, 4, 4, 6} {
			groups = append(groups, string(id[:n]))
			id = id[n:]
		}
		return &Volume{Kind: "lvm2-pv", UUID: strings.Join(groups, "-"), ProbedSize: le.Uint64(b[at+32:])}
	}
	return nil
}

// lvmSum is LVM's checksum: CRC-32 of the usual polynomial without the final
// inversion, from a start of its own.
func lvmSum(b []byte) uint32 {
	sum := uint32(0xf597a6cf)
	for _, c := range b {
		sum ^= uint32(c)
		for range 8 {
			sum = sum>>1 ^ 0xedb88320&-(sum&1)
		}
	}
	return sum
}

// bluestore is an object store of Ceph.
func bluestore(w *window) *Volume {
	const mark = "bluestore block device\n"
	b := w.at(0, 64)
	if b == nil || !bytes.HasPrefix(b, []byte(mark)) {
		return nil
	}
	return &Volume{Kind: "bluestore", UUID: textUUID.FindString(text(b[len(mark):]))}
}

func bcache(w *window) *Volume {
	b := w.at(4096, 256)
	if b == nil || uuid(b[24:]) != "c68573f6-4e1a-45ca-8265-f57f48ba6d81" {
		return nil
	}
	return &Volume{Kind: "bcache", UUID: uuid(b[40:]), Label: text(b[72:104])}
}

// verity is a hash tree of dm-verity that has a superblock.
func verity(w *window) *Volume {
	b := w.at(0, 512)
	if b == nil || string(b[:8]) != "verity\x00\x00" || le.Uint32(b[8:]) != 1 {
		return nil
	}
	return &Volume{Kind: "DM_verity_hash", UUID: uuid(b[16:])}
}

// meta is the META partition: two copies of 256 KiB, each between two marks.
func meta(w *window) *Volume {
	const length, first, last = 256 << 10, 0x5a4b3c2d, 0xa5b4c3d2
	for _, off := range []uint64{0, length} {
		head, tail := w.at(off, 4), w.at(off+length-4, 4)
		if head != nil && tail != nil && be.Uint32(head) == first && be.Uint32(tail) == last {
			return &Volume{Kind: "talosmeta", ProbedSize: 2 * length}
		}
	}
	return nil
}

// zfs is a member of a pool. It has four labels, each with the pool's
// description and a ring of uberblocks; without four of these it is a leftover.
func zfs(w *window) *Volume {
	const label, magic = 256 << 10, 0x00bab10c
	if w.size < 64<<20 {
		return nil
	}
	end := w.size &^ (label - 1)
	found := 0
	for _, off := range []uint64{0, label, end - 2*label, end - label} {
		ring := w.at(off+label/2, label/2)
		for ; len(ring) >= 1024; ring = ring[1024:] {
			if le.Uint64(ring) == magic || be.Uint64(ring) == magic {
				found++
			}
		}
		if found >= 4 {
			v := &Volume{Kind: "zfs"}
			v.Label, v.UUID = pool(w.at(off+16<<10, 112<<10))
			return v
		}
	}
	return nil
}

// pool finds name and id in the pairs of an XDR list (RFC 4506): each has its
// size, its unpadded name, its type, how many values, and these.
func pool(b []byte) (name, id string) {
	if len(b) < 12 {
		return "", ""
	}
	b = b[12:] // encoding, version and flags of the list
	for range 64 {
		if len(b) < 12 {
			break
		}
		size, n := be.Uint32(b), be.Uint32(b[8:])
		if size < 20 || uint64(size) > uint64(len(b)) || n > 64 || (n+3)&^3+20 > size {
			break
		}
		key, value := string(b[12:12+n]), b[12+(n+3)&^3+8:size]
		switch {
		case key == "name" && len(value) >= 4 && uint64(be.Uint32(value)) <= uint64(len(value)-4):
			name = string(value[4 : 4+be.Uint32(value)])
		case key == "pool_guid" && len(value) >= 8:
			id = fmt.Sprint(be.Uint64(value))
		}
		b = b[size:]
	}
	return name, id
}
