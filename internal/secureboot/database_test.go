package secureboot

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// database is what firmware has that was told the keys of a folder.
func database(t testing.TB, dir string) Database {
	t.Helper()
	list, err := os.ReadFile(filepath.Join(dir, "db.esl"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDatabase(list)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestAdmits: the database of the key's firmware admits a program, another does
// not, and says by whom it is signed; a digest admits just that program.
func TestAdmits(t *testing.T) {
	dir, otherDir := folder(t, ours), folder(t, theirs)
	k, d, other := load(t, dir), database(t, dir), database(t, otherDir)
	plain := program(t)
	signed := sign(t, plain, k)
	admits := func(d Database, b []byte) (string, error) { return d.Admits(bytes.NewReader(b), int64(len(b))) }
	if by, err := admits(d, signed); by != k.DB.Certificate.Subject.CommonName || err != nil {
		t.Errorf("Admits = %q, %v, want %s", by, err, k.DB.Certificate.Subject.CommonName)
	}
	if by, err := admits(other, signed); err == nil || !strings.Contains(err.Error(), "signed by "+k.DB.Certificate.Subject.CommonName) {
		t.Errorf("Admits by a database without the certificate = %q, %v, want by whom it is signed", by, err)
	}
	if by, err := admits(d, plain); err == nil {
		t.Errorf("Admits of what is not signed = %q", by)
	}
	changed := bytes.Clone(signed)
	changed[len(plain)/2] ^= 1
	if by, err := admits(d, changed); err == nil {
		t.Errorf("Admits of what was changed = %q", by)
	}
	_, sum, err := signatures(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	known := Database{Digests: [][]byte{sum}}
	for what, want := range map[string][]byte{"admitted": plain, "refused": changed} {
		if by, err := admits(known, want); (err == nil) != (what == "admitted") {
			t.Errorf("by its digest: %q, %v, want it %s", by, err, what)
		}
	}
}

func TestSigners(t *testing.T) {
	k, other := load(t, folder(t, ours)), load(t, folder(t, theirs))
	plain := program(t)
	names := func(b []byte) (n int, err error) {
		found, err := Signers(bytes.NewReader(b), int64(len(b)))
		return len(found), err
	}
	signed := sign(t, plain, k)
	for want, b := range [][]byte{plain, signed, sign(t, signed, other)} {
		if n, err := names(b); n != want || err != nil {
			t.Errorf("Signers of what is signed %d times: %d, %v", want, n, err)
		}
	}
	signed[len(plain)/2] ^= 1
	if n, err := names(signed); err == nil {
		t.Errorf("Signers of what was changed: %d, want an error", n)
	}
}

// FuzzParseDatabase: whatever the firmware has, reading it ends.
func FuzzParseDatabase(f *testing.F) {
	files, err := ours()
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file.Name, ".esl") {
			f.Add(file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := ParseDatabase(b); err != nil && len(d.Certificates)+len(d.Digests) > 0 {
			t.Error("an error, and a database")
		}
	})
}
