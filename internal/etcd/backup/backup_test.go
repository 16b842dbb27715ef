package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// snapshot has the form of one, with a database of that many pages.
func snapshot(pages int) []byte {
	db := make([]byte, pages*4096)
	binary.LittleEndian.PutUint32(db[magicAt:], magic)
	for i := 4096; i < len(db); i++ {
		db[i] = byte(i * 7)
	}
	sum := sha256.Sum256(db)
	return append(db, sum[:]...)
}

func TestVerify(t *testing.T) {
	good := snapshot(8)
	flipped := bytes.Clone(good)
	flipped[9000] ^= 1
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"whole", good, nil},
		{"a bit flipped", flipped, ErrDamaged},
		{"cut in a page", good[:len(good)-100], ErrDamaged},
		{"cut between pages", good[:5*4096], ErrNoChecksum},
		{"cut so that a page's bytes look like the sum", good[:5*4096+sumLength], ErrDamaged},
		{"a member's database", good[:len(good)-sumLength], ErrNoChecksum},
		{"something appended", append(bytes.Clone(good), 'x'), ErrDamaged},
		{"a text", []byte(strings.Repeat("hello ", 5000)), ErrNoSnapshot},
		{"empty", nil, ErrNoSnapshot},
		{"tiny", good[:magicAt+4], ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, reader := range map[string]io.Reader{"at once": bytes.NewReader(c.data), "in halves": iotest.HalfReader(bytes.NewReader(c.data)), "by bytes": iotest.OneByteReader(bytes.NewReader(c.data))} {
				if err := Verify(reader); !errors.Is(err, c.want) {
					t.Errorf("%s: Verify = %v, want %v", name, err, c.want)
				}
			}
		})
	}
}

// TestSave: a file appears only when it is whole, and nothing else stays.
func TestSave(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db.snapshot")
	if err := os.WriteFile(path, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := snapshot(8)
	for name, reader := range map[string]io.Reader{
		"cut off": bytes.NewReader(good[:20000]), "broken": io.MultiReader(bytes.NewReader(good[:20000]), iotest.ErrReader(errors.New("connection lost"))),
	} {
		if _, err := Save(path, reader); err == nil {
			t.Errorf("%s: saved", name)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != "older" {
			t.Errorf("%s: the older file is %.20q, %v", name, data, err)
		}
	}
	if n, err := Save(path, bytes.NewReader(good)); err != nil || n != int64(len(good)) {
		t.Fatalf("Save = %d, %v", n, err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(data, good) {
		t.Errorf("the file is not what was sent: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v, want the file alone", entries, err)
	}
}

func TestVerifyFileUnchecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, snapshot(8)[:8*4096], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := VerifyFile(path, false); !errors.Is(err, ErrNoChecksum) {
		t.Errorf("VerifyFile = %v, want ErrNoChecksum", err)
	}
	if err := VerifyFile(path, true); err != nil {
		t.Errorf("VerifyFile without the check = %v, want nil", err)
	}
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := VerifyFile(path, true); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("VerifyFile of a text without the check = %v, want ErrNoSnapshot", err)
	}
}

// FuzzVerify: nothing but a database with its own checksum passes.
// FuzzVerify puts streams together, of a head, pages of zeros, an end, and the
// right checksum or none: what passes is a database and its checksum. A whole
// snapshot as input would be 16 kB, of which a fuzzer changes what matters
// hardly ever.
func FuzzVerify(f *testing.F) {
	head := snapshot(1)[:magicAt+4]
	f.Add(head, uint8(4*4096/page), []byte{}, true)
	f.Add(head, uint8(4*4096/page-1), make([]byte, page), true)
	f.Add(head, uint8(4*4096/page), []byte{}, false)
	f.Add(head, uint8(4*4096/page), make([]byte, sumLength), false)
	f.Add(head, uint8(1), []byte{1}, true)
	f.Add([]byte{}, uint8(0), []byte("hello"), false)
	f.Fuzz(func(t *testing.T, head []byte, pages uint8, end []byte, summed bool) {
		if len(head) > page || len(end) > 2*page {
			return
		}
		body := make([]byte, int(pages)*page)
		copy(body, head)
		data := append(body, end...)
		if sum := sha256.Sum256(data); summed {
			data = append(data, sum[:]...)
		}
		err := Verify(bytes.NewReader(data))
		if halves := Verify(iotest.HalfReader(bytes.NewReader(data))); fmt.Sprint(halves) != fmt.Sprint(err) {
			t.Errorf("%v at once, %v in halves", err, halves)
		}
		if err != nil {
			return
		}
		body = data[:len(data)-sumLength]
		if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[len(body):]) {
			t.Errorf("%d bytes pass with a wrong checksum", len(data))
		}
		if len(body)%page != 0 || len(body) < smallest || binary.LittleEndian.Uint32(body[magicAt:]) != magic {
			t.Errorf("%d bytes pass that are no database", len(data))
		}
	})
}
