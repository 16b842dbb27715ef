package artefact

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"

	"talos/internal/fat"
	"talos/internal/uki"
	"talos/internal/verity"
)

// Where media say what they are.
const (
	isoMagicAt = 16*isoSector + 1
	isoMagic   = "CD001"
	isoSector  = 2048
	gptMagic   = "EFI PART"
)

// Types of partitions, as they are stored.
const (
	typeEFI  = "28732ac11ff8d211ba4b00a0c93ec93b"
	typeRoot = "e3bc684fcde8b14d96e7fbcaf984b709"
)

type partition struct {
	kind, label string
	id          string // as verity.Root.PartitionID writes one
	data        *io.SectionReader
}

// medium checks an ISO or a disk image.
func (c *checker) medium(r *io.SectionReader, iso bool) error {
	parts, err := readGPT(r)
	if err != nil {
		c.add("", "partitions", Failed, "%v", err)
		return nil
	}
	var boot []*io.SectionReader
	for _, p := range parts {
		if p.kind == typeEFI {
			boot = append(boot, p.data)
		}
	}
	if len(boot) != 1 {
		c.add("", "partitions", Failed, "%d EFI system partitions, want one", len(boot))
		return nil
	}
	if c.disk = !iso; iso {
		if err := sameAsElTorito(r, boot[0]); err != nil {
			c.add("", "partitions", Failed, "%v", err)
		}
	}
	wanted, err := c.bootPartition(boot[0])
	if err != nil {
		c.add("EFI", "file system", Failed, "%v", err)
		return nil
	}
	if !iso {
		c.rootPartitions(parts, wanted)
	}
	return nil
}

// wish is the root that a kernel image asks for.
type wish struct {
	kernel string
	root   verity.Param
}

// bootPartition checks all programs of an EFI system partition. The slots of a
// disk may have different versions. The result is what the kernel images ask for.
func (c *checker) bootPartition(r *io.SectionReader) ([]wish, error) {
	files, err := fat.Read(r)
	if err != nil {
		return nil, err
	}
	var wanted []wish
	programs := 0
	for _, f := range files {
		if !strings.HasSuffix(strings.ToLower(f.Name), ".efi") {
			continue
		}
		programs++
		part := "EFI:/" + f.Name
		c.version = ""
		if err := c.program(part, f.Data); err != nil {
			return nil, err
		}
		if image, err := uki.Open(f.Data, f.Data.Size()); err == nil {
			if param, err := paramOf(image); err == nil {
				wanted = append(wanted, wish{part, param})
			}
		}
	}
	if programs == 0 {
		return nil, errors.New("there is no program for the firmware")
	}
	return wanted, nil
}

// rootPartitions looks for the root of each kernel image by its id, and checks
// it. A root partition that no kernel asks for is empty, or wrong.
func (c *checker) rootPartitions(parts []partition, wanted []wish) {
	used := map[string]bool{}
	for _, w := range wanted {
		id := w.root.Root.PartitionID()
		var found *partition
		for i := range parts {
			if parts[i].kind == typeRoot && parts[i].id == id {
				found = &parts[i]
			}
		}
		if found == nil {
			c.add(w.kernel, "root", Failed, "no root partition has the id %s that it asks for", id)
			continue
		}
		if !used[id] {
			used[id] = true
			c.root(found.label, found.data, w.root)
		}
	}
	for _, p := range parts {
		if p.kind == typeRoot && !used[p.id] {
			head := make([]byte, 4)
			if _, err := p.data.ReadAt(head, 0); err == nil && string(head) == squashMagic {
				c.add(p.label, "root", Failed, "it holds a root, and no kernel asks for it")
			}
		}
	}
}

// readGPT reads the partition table at a disk's start.
func readGPT(r *io.SectionReader) ([]partition, error) {
	for _, sector := range []int64{512, 4096} {
		head := make([]byte, 92)
		if _, err := r.ReadAt(head, sector); err != nil || string(head[:8]) != gptMagic {
			continue
		}
		return readEntries(r, head, sector)
	}
	return nil, errors.New("there is no partition table")
}

func readEntries(r *io.SectionReader, head []byte, sector int64) ([]partition, error) {
	le := binary.LittleEndian
	sum := le.Uint32(head[16:])
	clear(head[16:20])
	if le.Uint32(head[12:]) != 92 || crc32.ChecksumIEEE(head) != sum {
		return nil, errors.New("the partition table's header is damaged")
	}
	at, count, size := le.Uint64(head[72:]), le.Uint32(head[80:]), le.Uint32(head[84:])
	if size < 128 || size > 4096 || count > 1024 || at > uint64(r.Size()/sector) {
		return nil, errors.New("the partition table's header makes no sense")
	}
	table := make([]byte, int(size)*int(count))
	if _, err := r.ReadAt(table, int64(at)*sector); err != nil {
		return nil, fmt.Errorf("read partition table: %w", err)
	}
	if crc32.ChecksumIEEE(table) != le.Uint32(head[88:]) {
		return nil, errors.New("the partition table is damaged")
	}
	var parts []partition
	for ; len(table) > 0; table = table[size:] {
		if le.Uint64(table) == 0 && le.Uint64(table[8:]) == 0 {
			continue
		}
		first, last := le.Uint64(table[32:]), le.Uint64(table[40:])
		if end := uint64(r.Size() / sector); first > last || last >= end {
			return nil, errors.New("a partition is outside of the disk")
		}
		parts = append(parts, partition{
			kind: hex.EncodeToString(table[:16]), id: uuid(table[16:32]), label: utf16String(table[56:128]),
			data: io.NewSectionReader(r, int64(first)*sector, int64(last-first+1)*sector),
		})
	}
	return parts, nil
}

// uuid writes a GUID as it is stored in a partition table.
func uuid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// utf16String reads up to the first zero.
func utf16String(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// sameAsElTorito says whether a firmware that starts from a DVD finds the file
// system that was checked.
func sameAsElTorito(r, boot *io.SectionReader) error {
	record := make([]byte, isoSector)
	if _, err := r.ReadAt(record, 17*isoSector); err != nil {
		return fmt.Errorf("read boot record: %w", err)
	}
	if string(record[1:6]) != isoMagic || !strings.HasPrefix(string(record[7:]), "EL TORITO SPECIFICATION") {
		return errors.New("the ISO has no boot record")
	}
	catalog := make([]byte, isoSector)
	if _, err := r.ReadAt(catalog, int64(binary.LittleEndian.Uint32(record[0x47:]))*isoSector); err != nil {
		return fmt.Errorf("read boot catalog: %w", err)
	}
	const efi, bootable = 0xef, 0x88
	if catalog[0] != 1 || catalog[1] != efi || catalog[32] != bootable {
		return errors.New("the boot catalog's first entry is not for UEFI")
	}
	if catalog[64] != 0 {
		return errors.New("the boot catalog has more than one entry")
	}
	_, at, _ := boot.Outer()
	if want := int64(binary.LittleEndian.Uint32(catalog[40:])) * isoSector; at != want {
		return fmt.Errorf("from a DVD firmware starts what is at %d, from a USB stick what is at %d", want, at)
	}
	return nil
}
