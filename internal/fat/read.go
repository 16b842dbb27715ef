package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
)

// limits of a file system that is read.
const (
	maxFiles  = 1000
	maxDepth  = 8
	maxFolder = 1 << 20
	maxFile   = 512 << 20
)

// File is a file of a file system, which it is read from.
type File struct {
	Name string // its path, with slashes and no first one
	Data *io.SectionReader
}

// reader is a FAT16 or FAT32 file system that is being read.
type reader struct {
	r        *io.SectionReader
	fat      []byte
	wide     bool // FAT32
	cluster  int64
	data     int64 // where cluster 2 is
	clusters uint32
}

// Read lists all files of a file system, FAT16 or FAT32, whoever made it. What it
// reads may be hostile.
func Read(r *io.SectionReader) ([]File, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	le := binary.LittleEndian
	sector, perCluster := int64(le.Uint16(b[11:])), int64(b[13])
	reserved, tables, rootEntries := int64(le.Uint16(b[14:])), int64(b[16]), int64(le.Uint16(b[17:]))
	total, perFAT := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	wide := perFAT == 0
	if wide {
		perFAT = int64(le.Uint32(b[36:]))
	}
	powers := sector >= 512 && sector <= 4096 && sector&(sector-1) == 0 && perCluster > 0 && perCluster&(perCluster-1) == 0
	if le.Uint16(b[510:]) != 0xaa55 || !powers || tables == 0 || perFAT == 0 || total*sector > r.Size() {
		return nil, errors.New("there is no FAT file system")
	}
	root := (reserved + tables*perFAT) * sector
	f := &reader{r: r, wide: wide, cluster: perCluster * sector, data: root + (rootEntries*32+sector-1)/sector*sector}
	f.clusters = uint32(max(0, (total*sector-f.data)/f.cluster))
	if !wide && (f.clusters < 4085 || f.clusters >= 65525) || wide && f.clusters < 65525 {
		return nil, fmt.Errorf("a FAT file system of %d clusters", f.clusters)
	}
	f.fat = make([]byte, min(perFAT*sector, int64(f.clusters+2)*4))
	if _, err := r.ReadAt(f.fat, reserved*sector); err != nil {
		return nil, fmt.Errorf("read file allocation table: %w", err)
	}
	top := make([]byte, rootEntries*32)
	var err error
	if wide {
		top, err = f.chain(le.Uint32(b[44:]), maxFolder)
	} else {
		_, err = r.ReadAt(top, root)
	}
	if err != nil {
		return nil, fmt.Errorf("read root folder: %w", err)
	}
	var files []File
	err = f.folder("", top, maxDepth, &files)
	return files, err
}

// next is the cluster after this one; 0 at the end of a chain.
func (f *reader) next(n uint32) (uint32, error) {
	width, end := 2, uint32(0xfff8)
	if f.wide {
		width, end = 4, 0x0ffffff8
	}
	if n < 2 || n >= f.clusters+2 || (int(n)+1)*width > len(f.fat) {
		return 0, fmt.Errorf("a chain leads to cluster %d", n)
	}
	v := uint32(binary.LittleEndian.Uint16(f.fat[int(n)*width:]))
	if f.wide {
		v = binary.LittleEndian.Uint32(f.fat[int(n)*width:]) & 0x0fffffff
	}
	if v >= end {
		return 0, nil
	}
	return v, nil
}

// extents are the parts of a chain, as pieces of the file system.
func (f *reader) extents(n uint32, size int64) ([]extent, error) {
	var all []extent
	for have := int64(0); have < size || size < 0; {
		following, err := f.next(n)
		if err != nil {
			return nil, err
		}
		at := f.data + int64(n-2)*f.cluster
		if last := len(all) - 1; last >= 0 && all[last].at+all[last].size == at {
			all[last].size += f.cluster
		} else {
			all = append(all, extent{at, f.cluster})
		}
		if have += f.cluster; have > maxFile {
			return nil, errors.New("a chain that does not end")
		}
		if following == 0 {
			if have < size {
				return nil, errors.New("a file that ends early")
			}
			break
		}
		n = following
	}
	return all, nil
}

type extent struct{ at, size int64 }

// chain reads a folder.
func (f *reader) chain(n uint32, limit int64) ([]byte, error) {
	parts, err := f.extents(n, -1)
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, e := range parts {
		if int64(len(b))+e.size > limit {
			return nil, errors.New("a folder that is too large")
		}
		piece := make([]byte, e.size)
		if _, err := f.r.ReadAt(piece, e.at); err != nil {
			return nil, err
		}
		b = append(b, piece...)
	}
	return b, nil
}

// attrLong is what an entry has that holds a part of a long name.
const attrLong = 0x0f

func (f *reader) folder(path string, b []byte, depth int, files *[]File) error {
	if depth == 0 {
		return errors.New("folders in too many folders")
	}
	long := ""
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		switch {
		case b[0] == 0xe5:
			long = ""
		case b[11] == attrLong:
			long = longName(b) + long
		case b[11]&attrLabel != 0:
			long = ""
		default:
			name := long
			if long = ""; name == "" {
				name = shortName(b)
			}
			if name == "." || name == ".." {
				continue
			}
			if strings.ContainsFunc(name, func(c rune) bool { return c == '/' || !unicode.IsPrint(c) }) {
				return fmt.Errorf("folder %q: a file is called %q", path, name)
			}
			if err := f.entry(path+name, b, depth, files); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *reader) entry(path string, b []byte, depth int, files *[]File) error {
	first := uint32(binary.LittleEndian.Uint16(b[26:]))
	if f.wide {
		first |= uint32(binary.LittleEndian.Uint16(b[20:])) << 16
	}
	if b[11]&attrFolder != 0 {
		inner, err := f.chain(first, maxFolder)
		if err != nil {
			return fmt.Errorf("folder %s: %w", path, err)
		}
		return f.folder(path+"/", inner, depth-1, files)
	}
	size := int64(binary.LittleEndian.Uint32(b[28:]))
	var parts []extent
	if size > 0 {
		var err error
		if parts, err = f.extents(first, size); err != nil {
			return fmt.Errorf("file %s: %w", path, err)
		}
	}
	if *files = append(*files, File{path, io.NewSectionReader(&pieces{f.r, parts}, 0, size)}); len(*files) > maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	return nil
}

// pieces is a file in parts.
type pieces struct {
	r     io.ReaderAt
	parts []extent
}

func (p *pieces) ReadAt(b []byte, at int64) (n int, err error) {
	for _, e := range p.parts {
		if at >= e.size {
			at -= e.size
			continue
		}
		part := b[n:min(len(b), n+int(e.size-at))]
		m, err := p.r.ReadAt(part, e.at+at)
		if n += m; err != nil && m < len(part) || n == len(b) {
			return n, err
		}
		at = 0
	}
	return n, io.EOF
}

func shortName(b []byte) string {
	name, ext := strings.TrimRight(string(b[:8]), " "), strings.TrimRight(string(b[8:11]), " ")
	if ext != "" {
		name += "." + ext
	}
	return name
}

// longName is the part of a name that an entry holds.
func longName(b []byte) string {
	var units []uint16
	for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		u := binary.LittleEndian.Uint16(b[at:])
		if u == 0 || u == 0xffff {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
