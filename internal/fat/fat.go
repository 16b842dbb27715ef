// Package fat makes FAT32 file systems, complete with their files, and reads the
// files of one.
//
// It writes a new file system in one go, straight to where it belongs: no
// program, no mount and no temporary file is needed, and the same files give
// the same bytes. It reads without mounting, so that the kernel need not trust
// what is there. It changes nothing that exists; for that there are the kernel
// and mtools. The format is Microsoft's "FAT: General
// Overview of On-Disk Format", 1.03. It keeps no state and is safe for
// concurrent use.
package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strings"
)

// FS describes a file system.
type FS struct {
	Size   int64             // bytes; what is left over behind the last cluster stays unused
	Sector int               // bytes: 512, 1024, 2048 or 4096. Firmware reads only that of the disk
	Hidden uint32            // sectors before the file system on its disk
	ID     uint32            // serial number of the volume
	Label  string            // up to eleven capitals and digits
	Files  map[string][]byte // by path, with slashes and no first one; folders come of themselves
}

const (
	reserved    = 32 // sectors before the first table
	tables      = 2
	infoSector  = 1
	backupStart = 6
	rootCluster = 2

	// A file system with fewer clusters is FAT16, whatever it says of itself.
	minClusters = 65525
	maxClusters = 0x0ffffff5

	// clusterSize is small enough for FAT32 at a quarter of a gigabyte.
	clusterSize = 2048

	entrySize  = 32
	endOfChain = 0x0fffffff
	attrLabel  = 0x08
	attrFolder = 0x10
	attrFile   = 0x20
)

// geometry is where things are, in sectors and clusters.
type geometry struct {
	sector    int
	total     int64 // sectors
	perFAT    int64 // sectors of a table
	clusters  int64
	inCluster int64 // sectors
}

func (f FS) geometry() (geometry, error) {
	switch f.Sector {
	case 512, 1024, 2048, 4096:
	default:
		return geometry{}, fmt.Errorf("fat: sectors of %d bytes", f.Sector)
	}
	g := geometry{sector: f.Sector, total: f.Size / int64(f.Sector), inCluster: max(1, int64(clusterSize/f.Sector))}
	most := (g.total - reserved) / g.inCluster
	g.perFAT = ((most+2)*4 + int64(g.sector) - 1) / int64(g.sector)
	g.clusters = (g.total - reserved - tables*g.perFAT) / g.inCluster
	if g.clusters < minClusters || g.clusters >= maxClusters || g.total > 0xffffffff {
		return geometry{}, fmt.Errorf("fat: %d bytes in sectors of %d make %d clusters, which is no FAT32", f.Size, f.Sector, g.clusters)
	}
	return g, nil
}

func (g geometry) clusterBytes() int64 { return g.inCluster * int64(g.sector) }

// at is where a cluster is, in bytes.
func (g geometry) at(cluster uint32) int64 {
	return (reserved + tables*g.perFAT + int64(cluster-rootCluster)*g.inCluster) * int64(g.sector)
}

// Write writes the file system, whose first byte is at 0 of w. What it does not
// write may hold anything.
func (f FS) Write(w io.WriterAt) error {
	g, err := f.geometry()
	if err != nil {
		return err
	}
	root, err := tree(f.Files)
	if err != nil {
		return err
	}
	p := &placer{g: g, next: rootCluster, fat: []uint32{0x0ffffff8, endOfChain}}
	if err := p.place(root); err != nil {
		return err
	}
	if f.Label != "" {
		label, err := shortLabel(f.Label)
		if err != nil {
			return err
		}
		root.label = label
	}
	if err := p.write(w, root, root); err != nil {
		return fmt.Errorf("fat: %w", err)
	}
	return f.writeHead(w, p)
}

// placer gives every file and folder its clusters, one behind the other.
type placer struct {
	g    geometry
	next uint32
	fat  []uint32
}

func (p *placer) place(n *node) error {
	size := int64(len(n.data))
	if n.folder {
		size = int64(n.entries()) * entrySize
	}
	count := (size + p.g.clusterBytes() - 1) / p.g.clusterBytes()
	if int64(p.next)+count > p.g.clusters+rootCluster {
		return fmt.Errorf("fat: there is no room for %s, %d bytes", n.name, size)
	}
	if count > 0 {
		n.cluster = p.next
	}
	for i := range count {
		p.next++
		if i == count-1 {
			p.fat = append(p.fat, endOfChain)
		} else {
			p.fat = append(p.fat, p.next)
		}
	}
	for _, c := range n.children {
		if err := p.place(c); err != nil {
			return err
		}
	}
	return nil
}

// write writes a file or a folder with all below it; up is the folder above.
func (p *placer) write(w io.WriterAt, n, up *node) error {
	data := n.data
	if n.folder {
		data = n.folderData(up)
	}
	if len(data) > 0 {
		whole := (int64(len(data)) + p.g.clusterBytes() - 1) / p.g.clusterBytes() * p.g.clusterBytes()
		at := p.g.at(n.cluster)
		if _, err := w.WriteAt(data, at); err != nil {
			return err
		}
		if _, err := w.WriteAt(make([]byte, whole-int64(len(data))), at+int64(len(data))); err != nil {
			return err
		}
	}
	for _, c := range n.children {
		if err := p.write(w, c, n); err != nil {
			return err
		}
	}
	return nil
}

// writeHead writes the boot sector, its copy, and the tables.
func (f FS) writeHead(w io.WriterAt, p *placer) error {
	g := p.g
	head := make([]byte, reserved*g.sector)
	for _, at := range []int{0, backupStart} {
		f.bootSector(head[at*g.sector:], g)
		info := head[(at+infoSector)*g.sector:]
		copy(info, "RRaA")
		copy(info[484:], "rrAa")
		binary.LittleEndian.PutUint32(info[488:], uint32(g.clusters+rootCluster-int64(p.next)))
		binary.LittleEndian.PutUint32(info[492:], p.next)
		copy(info[510:], "\x55\xaa")
	}
	table := make([]byte, g.perFAT*int64(g.sector))
	for i, v := range p.fat {
		binary.LittleEndian.PutUint32(table[4*i:], v)
	}
	for i := range int64(tables) {
		if _, err := w.WriteAt(table, (reserved+i*g.perFAT)*int64(g.sector)); err != nil {
			return fmt.Errorf("fat: %w", err)
		}
	}
	if _, err := w.WriteAt(head, 0); err != nil {
		return fmt.Errorf("fat: %w", err)
	}
	return nil
}

func (f FS) bootSector(b []byte, g geometry) {
	le := binary.LittleEndian
	copy(b, "\xeb\x58\x90TALOS   ")
	le.PutUint16(b[11:], uint16(g.sector))
	b[13] = byte(g.inCluster)
	le.PutUint16(b[14:], reserved)
	b[16] = tables
	b[21] = 0xf8             // a fixed disk
	le.PutUint16(b[24:], 63) // sectors of a track and heads: nobody asks
	le.PutUint16(b[26:], 255)
	le.PutUint32(b[28:], f.Hidden)
	le.PutUint32(b[32:], uint32(g.total))
	le.PutUint32(b[36:], uint32(g.perFAT))
	le.PutUint32(b[44:], rootCluster)
	le.PutUint16(b[48:], infoSector)
	le.PutUint16(b[50:], backupStart)
	b[64] = 0x80
	b[66] = 0x29 // the three fields that follow are there
	le.PutUint32(b[67:], f.ID)
	label := f.Label
	if label == "" {
		label = "NO NAME"
	}
	copy(b[71:], fmt.Sprintf("%-11s", label))
	copy(b[82:], "FAT32   ")
	copy(b[510:], "\x55\xaa")
}

// shortLabel is the label as a folder entry has it.
func shortLabel(label string) ([]byte, error) {
	if len(label) > 11 || strings.Trim(label, shortChars+" ") != "" {
		return nil, fmt.Errorf("fat: label %q: want up to eleven of %s", label, shortChars)
	}
	return []byte(fmt.Sprintf("%-11s", label)), nil
}

// split cuts a path and refuses what no path may be.
func split(name string) ([]string, error) {
	if name == "." || name == "" || path.Clean(name) != name || path.IsAbs(name) || strings.HasPrefix(name, "..") {
		return nil, fmt.Errorf("fat: %q is not a path in the file system", name)
	}
	return strings.Split(name, "/"), nil
}
