package fat

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"
)

// node is a file or a folder.
type node struct {
	name     string
	short    [11]byte // its name of eight and three characters, padded, without the point
	long     bool     // the short name does not say it all
	folder   bool
	data     []byte // of a file
	children []*node
	cluster  uint32 // 0: it has none
	label    []byte // of the root: that of the file system
	root     bool
}

// shortChars are what short names are made of here; FAT allows a few more.
const shortChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// tree makes the folders of the files, each with its names in order.
func tree(files map[string][]byte) (*node, error) {
	root := &node{name: "/", folder: true, root: true}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		parts, err := split(name)
		if err != nil {
			return nil, err
		}
		at := root
		for i, part := range parts {
			last := i == len(parts)-1
			if at, err = at.child(part, !last); err != nil {
				return nil, fmt.Errorf("fat: %s: %w", name, err)
			}
			if last {
				at.data = files[name]
			}
		}
	}
	return root, nil
}

// child returns what has that name in a folder, made if need be. A file is
// always new.
func (n *node) child(name string, folder bool) (*node, error) {
	for _, c := range n.children {
		if strings.EqualFold(c.name, name) {
			if c.folder && folder {
				return c, nil
			}
			return nil, fmt.Errorf("%s is there already: case makes no difference", c.name)
		}
	}
	if len(utf16.Encode([]rune(name))) > 255 || strings.ContainsAny(name, "\"*:<>?\\|\x00") || strings.HasSuffix(name, ".") || strings.TrimSpace(name) != name {
		return nil, fmt.Errorf("%q can't be a name", name)
	}
	c := &node{name: name, folder: folder}
	c.shorten(n.children)
	n.children = append(n.children, c)
	return c, nil
}

// shorten gives n a short name that none of its siblings has.
func (n *node) shorten(siblings []*node) {
	stem, ext, _ := cutLast(n.name)
	if fits(stem, 8) && len(stem) > 0 && fits(ext, 3) && strings.Trim(n.name, shortChars+".") == "" {
		n.short = padded(stem, ext)
		return
	}
	n.long = true
	stem, ext = clean(stem), clean(ext)
	for i := 1; ; i++ {
		tail := fmt.Sprintf("~%d", i)
		short := padded(stem[:min(len(stem), 8-len(tail))]+tail, ext[:min(len(ext), 3)])
		if !slices.ContainsFunc(siblings, func(s *node) bool { return s.short == short }) {
			n.short = short
			return
		}
	}
}

func fits(s string, most int) bool { return len(s) <= most && !strings.Contains(s, ".") }

// cutLast cuts at the last point.
func cutLast(name string) (stem, ext string, found bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// clean keeps what a short name may have, and stands _ for the rest.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '.' || r == ' ':
			return -1
		case strings.ContainsRune(shortChars, r):
			return r
		}
		return '_'
	}, strings.ToUpper(s))
}

func padded(stem, ext string) [11]byte {
	return [11]byte([]byte(fmt.Sprintf("%-8s%-3s", stem, ext)))
}

// entries is how many a folder has room for.
func (n *node) entries() int {
	count := 2 // itself and the one above; in the root, the label and one for nothing
	for _, c := range n.children {
		count += 1 + len(c.longEntries())
	}
	return count
}

// folderData is the content of a folder.
func (n *node) folderData(up *node) []byte {
	var b []byte
	switch {
	case n.root && n.label != nil:
		b = append(b, shortEntry([11]byte(n.label), attrLabel, 0, 0)...)
	case !n.root:
		above := up.cluster
		if up.root {
			above = 0 // the root is called so from below
		}
		b = append(b, shortEntry(padded(".", ""), attrFolder, n.cluster, 0)...)
		b = append(b, shortEntry(padded("..", ""), attrFolder, above, 0)...)
	}
	for _, c := range n.children {
		for _, e := range c.longEntries() {
			b = append(b, e...)
		}
		attr := byte(attrFile)
		if c.folder {
			attr = attrFolder
		}
		b = append(b, shortEntry(c.short, attr, c.cluster, uint32(len(c.data)))...)
	}
	return append(b, make([]byte, n.entries()*entrySize-len(b))...)
}

// shortEntry is the entry of a file. Every time is the first of January 1980,
// the first that FAT knows.
func shortEntry(name [11]byte, attr byte, cluster, size uint32) []byte {
	const date = 1<<5 | 1
	e := make([]byte, entrySize)
	copy(e, name[:])
	e[11] = attr
	for _, at := range []int{16, 18, 24} { // made, read, changed
		binary.LittleEndian.PutUint16(e[at:], date)
	}
	binary.LittleEndian.PutUint16(e[20:], uint16(cluster>>16))
	binary.LittleEndian.PutUint16(e[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(e[28:], size)
	return e
}

// longEntries hold the long name, thirteen characters each, the last first.
func (n *node) longEntries() [][]byte {
	if !n.long {
		return nil
	}
	const chars = 13
	text := utf16.Encode([]rune(n.name))
	if len(text)%chars != 0 {
		text = append(text, 0)
	}
	for len(text)%chars != 0 {
		text = append(text, 0xffff)
	}
	count := len(text) / chars
	out := make([][]byte, 0, count)
	for i := count; i > 0; i-- {
		e := make([]byte, entrySize)
		e[0] = byte(i)
		if i == count {
			e[0] |= 0x40
		}
		e[11], e[13] = 0x0f, checksum(n.short)
		part := text[(i-1)*chars:]
		for j, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			binary.LittleEndian.PutUint16(e[at:], part[j])
		}
		out = append(out, e)
	}
	return out
}

// checksum ties the entries of a long name to their short one.
func checksum(short [11]byte) byte {
	var sum byte
	for _, c := range short {
		sum = sum<<7 + sum>>1 + c
	}
	return sum
}
