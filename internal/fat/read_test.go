package fat

import (
	"encoding/binary"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRead: what was written is read.
func TestRead(t *testing.T) {
	for _, want := range []FS{
		{Size: 256 << 20, Sector: 512, Label: "EFI", Files: example()},
		{Size: 288 << 20, Sector: 4096, Files: example()},
	} {
		name := write(t, want)
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, err := Read(io.NewSectionReader(f, 0, want.Size))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string][]byte{}
		for _, file := range files {
			data, err := io.ReadAll(file.Data)
			if err != nil {
				t.Errorf("%s: %v", file.Name, err)
			}
			got[file.Name] = append([]byte{}, data...)
		}
		if diff := cmp.Diff(want.Files, got); diff != "" {
			t.Errorf("sectors of %d bytes (-written +read):\n%s", want.Sector, diff)
		}
	}
}

func TestReadSmall(t *testing.T) {
	files, err := Read(sparse(smallFAT()))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].Name != "EFI/A.EFI" || files[0].Data.Size() != 3000 {
		t.Errorf("Read = %v, want EFI/A.EFI of 3000 bytes", files)
	}
}

// FuzzRead: every file that is listed can be read to its end.
func FuzzRead(f *testing.F) {
	f.Add(smallFAT())
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := Read(sparse(data))
		if err != nil {
			return
		}
		for _, file := range files {
			if _, err := file.Data.ReadAt(make([]byte, min(file.Data.Size(), 1<<16)), 0); err != nil && file.Data.Size() > 0 {
				t.Errorf("%s of %d bytes: %v", file.Name, file.Data.Size(), err)
			}
		}
	})
}

// sparseDisk is a disk of 16 MiB whose first bytes are given; the rest is zero.
// The least file system of FAT16 is that large.
type sparseDisk []byte

const sparseSize = 16 << 20

func sparse(data []byte) *io.SectionReader {
	return io.NewSectionReader(sparseDisk(data), 0, sparseSize)
}

func (d sparseDisk) ReadAt(p []byte, at int64) (int, error) {
	n := int(min(int64(len(p)), max(0, sparseSize-at)))
	clear(p[:n])
	if at < int64(len(d)) {
		copy(p[:n], d[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// smallFAT is the start of a FAT16 file system with a folder and a file in it.
func smallFAT() []byte {
	const sector, perFAT = 512, 32
	le := binary.LittleEndian
	b := make([]byte, (1+perFAT+1+2)*sector)
	le.PutUint16(b[11:], sector)
	b[13] = 4 // sectors per cluster
	le.PutUint16(b[14:], 1)
	b[16] = 1
	le.PutUint16(b[17:], 16)
	le.PutUint16(b[19:], sparseSize/sector-1)
	le.PutUint16(b[22:], perFAT)
	le.PutUint16(b[510:], 0xaa55)
	fat, root := b[sector:], b[(1+perFAT)*sector:]
	le.PutUint16(fat[2*2:], 0xffff)
	le.PutUint16(fat[2*3:], 4)
	le.PutUint16(fat[2*4:], 0xffff)
	copy(root, "EFI        ")
	root[11] = attrFolder
	le.PutUint16(root[26:], 2)
	folder := root[sector:]
	copy(folder, "A       EFI")
	le.PutUint16(folder[26:], 3)
	le.PutUint32(folder[28:], 3000)
	return b
}
