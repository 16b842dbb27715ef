// Package verity computes the hash tree by which the kernel checks every block
// of a read-only root, and names that tree on the kernel's command line.
//
// The parameters are fixed, so that 32 bytes and a length say all: dm-verity's
// format 1, SHA-256, data and hash blocks of 4096 bytes, no salt, no
// superblock, the tree directly behind the data. A salt would hide that two
// images are the same, which is what we want to see.
//
// The package reads and writes what it is given; it sets up no device. It keeps
// no state and is safe for concurrent use.
package verity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"talos/internal/cmdline"
)

// BlockSize is that of data and of hashes, in bytes.
const BlockSize = 4096

// perBlock is how many digests a block of the tree holds.
const perBlock = BlockSize / sha256.Size

// Argument is the key of the kernel's command line whose value is a Param.
const Argument = "talos.root"

// maxBlocks keeps every offset, that of the tree's end included, an int64.
const maxBlocks = math.MaxInt64 / BlockSize / 2

// Root is the hash at the top of a tree.
type Root [sha256.Size]byte

func (r Root) String() string { return hex.EncodeToString(r[:]) }

// PartitionID is the GPT id of the partition that holds the image: the first
// half of the root hash as RFC 9562 writes a UUID, in lower case, no bit changed.
func (r Root) PartitionID() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", r[0:4], r[4:6], r[6:8], r[8:10], r[10:16])
}

// Param is all that is needed to check an image: the hash at the top, and the
// number of data blocks, behind which the tree begins.
type Param struct {
	Root   Root
	Blocks uint64
}

// String is the value of talos.root=.
func (p Param) String() string { return p.Root.String() + ":" + strconv.FormatUint(p.Blocks, 10) }

// DataSize is where the data end and the tree begins, in bytes.
func (p Param) DataSize() int64 { return int64(p.Blocks) * BlockSize }

// Size is that of data and tree together, in bytes.
func (p Param) Size() int64 { return p.DataSize() + TreeSize(p.Blocks) }

// Parse reads the value of talos.root=. It takes only what String writes.
func Parse(s string) (Param, error) {
	root, blocks, ok := strings.Cut(s, ":")
	if !ok || len(root) != hex.EncodedLen(sha256.Size) {
		return Param{}, fmt.Errorf("%s=%q: want 64 hexadecimal digits, a colon, a number of blocks", Argument, s)
	}
	var p Param
	if _, err := hex.Decode(p.Root[:], []byte(root)); err != nil {
		return Param{}, fmt.Errorf("%s=%q: %w", Argument, s, err)
	}
	n, err := strconv.ParseUint(blocks, 10, 64)
	if err != nil {
		return Param{}, fmt.Errorf("%s=%q: number of blocks: %w", Argument, s, err)
	}
	if n == 0 || n > maxBlocks {
		return Param{}, fmt.Errorf("%s=%q: number of blocks: want 1 to %d", Argument, s, uint64(maxBlocks))
	}
	if p.Blocks = n; p.String() != s {
		return Param{}, fmt.Errorf("%s=%q: want it written as %s", Argument, s, p)
	}
	return p, nil
}

// FromCommandLine finds talos.root= among the kernel's arguments. One that is
// there twice is refused: which of them counts must not be a question.
func FromCommandLine(line cmdline.Line) (Param, error) {
	found := line.All(Argument)
	switch len(found) {
	case 0:
		return Param{}, errors.New("the kernel's command line has no " + Argument + "=")
	case 1:
		return Parse(found[0])
	}
	return Param{}, errors.New("the kernel's command line has more than one " + Argument + "=")
}

// TreeSize is the size in bytes of the tree over so many data blocks. A single
// block has none: its own hash is the root.
func TreeSize(blocks uint64) int64 {
	var n uint64
	for blocks > 1 {
		blocks = (blocks + perBlock - 1) / perBlock
		n += blocks
	}
	return int64(n) * BlockSize
}

// Build reads size bytes of data, a multiple of BlockSize, and writes their tree,
// the top level first. It holds the tree in memory: a 128th of the data.
func Build(data io.ReaderAt, size int64, tree io.Writer) (Param, error) {
	if size <= 0 || size%BlockSize != 0 {
		return Param{}, fmt.Errorf("hash tree of %d bytes: want a multiple of %d", size, BlockSize)
	}
	p := Param{Blocks: uint64(size / BlockSize)}
	level, err := hashBlocks(io.NewSectionReader(data, 0, size), p.Blocks)
	if err != nil {
		return Param{}, fmt.Errorf("hash tree: read data: %w", err)
	}
	var levels [][]byte
	for len(level) > sha256.Size {
		if rest := len(level) % BlockSize; rest > 0 {
			level = append(level, make([]byte, BlockSize-rest)...)
		}
		levels = append(levels, level)
		level = appendHashes(nil, level)
	}
	p.Root = Root(level)
	for i := len(levels) - 1; i >= 0; i-- {
		if _, err := tree.Write(levels[i]); err != nil {
			return Param{}, fmt.Errorf("hash tree: write: %w", err)
		}
	}
	return p, nil
}

// What Check finds.
var (
	ErrData = errors.New("the data are not those of the root hash")
	ErrTree = errors.New("the hash tree is damaged, the data are whole")
)

// Check reads an image whole and computes its tree anew, so that what nobody has
// read yet is found too. The error is ErrData or ErrTree and the place, or what
// kept it from reading.
func Check(image io.ReaderAt, p Param) error {
	c := &comparer{first: -1, r: io.NewSectionReader(image, p.DataSize(), p.Size()-p.DataSize())}
	got, err := Build(image, p.DataSize(), c)
	switch {
	case err != nil:
		return err
	case got.Root == p.Root && c.differs:
		return ErrTree
	case got.Root == p.Root:
		return nil
	case c.first < 0:
		return fmt.Errorf("%w %s: these and their hash tree are of %s", ErrData, p.Root, got.Root)
	}
	block := c.first / sha256.Size
	return fmt.Errorf("%w %s: block %d, at byte %d, is not what its hash says", ErrData, p.Root, block, block*BlockSize)
}

// comparer is a writer of what must be there already, level by level.
type comparer struct {
	r       io.Reader
	differs bool
	first   int // byte of the last level that differs, or -1: of data, the digest of a block
}

func (c *comparer) Write(level []byte) (int, error) {
	c.first = -1
	have := make([]byte, BlockSize)
	for at := 0; at < len(level); at += BlockSize {
		if _, err := io.ReadFull(c.r, have); err != nil {
			return at, fmt.Errorf("compare with the one that is there: %w", err)
		}
		if c.first >= 0 {
			continue
		}
		for i := range have {
			if have[i] != level[at+i] {
				c.differs, c.first = true, at+i
				break
			}
		}
	}
	return len(level), nil
}

// hashBlocks is the lowest level of the tree.
func hashBlocks(r io.Reader, blocks uint64) ([]byte, error) {
	digests := make([]byte, 0, blocks*sha256.Size)
	buf := make([]byte, 64*BlockSize)
	for blocks > 0 {
		part := buf[:min(blocks, 64)*BlockSize]
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, err
		}
		digests = appendHashes(digests, part)
		blocks -= uint64(len(part)) / BlockSize
	}
	return digests, nil
}

// appendHashes appends the digest of each block.
func appendHashes(digests, blocks []byte) []byte {
	for ; len(blocks) > 0; blocks = blocks[BlockSize:] {
		sum := sha256.Sum256(blocks[:BlockSize])
		digests = append(digests, sum[:]...)
	}
	return digests
}
