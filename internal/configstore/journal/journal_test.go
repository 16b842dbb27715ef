package journal

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrittenAndRead goes through the disk, with the journal's own writing.
func TestWrittenAndRead(t *testing.T) {
	dir := t.TempDir()
	copy := filepath.Join(dir, "state", "config.yaml")
	j := New(filepath.Join(dir, "state", "config"), copy, slog.New(slog.DiscardHandler))
	x, err := j.Read()
	if err != nil || len(x.Entries) != 0 {
		t.Fatalf("Read of nothing = %+v, %v", x, err)
	}
	for _, doc := range []string{"one", "two"} {
		x = x.Add(Entry{Digest: Digest([]byte(doc))})
		x.Boot = x.Last
		if err := j.Put(x.Last, []byte(doc)); err != nil {
			t.Fatal(err)
		}
		if err := j.Commit(x); err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.Read()
	if err != nil || got.Boot != 2 || len(got.Entries) != 2 {
		t.Fatalf("Read = %+v, %v", got, err)
	}
	if data, err := j.Document(got.Entries[0]); err != nil || string(data) != "one" {
		t.Errorf("Document = %q, %v", data, err)
	}
	if data, err := j.Copy(); err != nil || string(data) != "two" {
		t.Errorf("Copy = %q, %v", data, err)
	}
	for _, path := range []string{copy, j.path("1.yaml"), j.path(indexName)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", path, info, err)
		}
	}
}

func TestIndexIsChecked(t *testing.T) {
	for text, want := range map[string]string{
		`{"format":1,"last":2,"boot":2,"entries":[{"number":2}]}`: "",
		`{"format":1,"last":0,"boot":0,"entries":null}`:           "",
		`{"format":2}`: "format 2, want 1",
		`{"format":1,"last":2,"boot":3,"entries":[{"number":2}]}`:                                                  "configuration 3 is not in the index",
		`{"format":1,"last":1,"boot":1,"entries":[{"number":2}]}`:                                                  "entry 2 after 0, the last being 1",
		`{"format":1,"last":2,"boot":1,"entries":[{"number":2},{"number":1}]}`:                                     "entry 1 after 2",
		`{"format":1,"last":2,"boot":2,"entries":[{"number":2}],"pending":{"number":2,"fallback":1}}`:              "configuration 1 is not in the index",
		`{"format":1,"last":2,"boot":2,"entries":[{"number":1},{"number":2}],"pending":{"number":2,"fallback":1}}`: "",
		`{"format":1,"last":`: "unexpected EOF",
	} {
		_, err := decode([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("decode(%s) = %v, want %q", text, err, want)
		}
	}
}

func TestAddForgetsTheOldest(t *testing.T) {
	var x Index
	for range Kept + 5 {
		x = x.Add(Entry{}, 3)
		if x.Boot == 0 {
			x.Boot = 1
		}
	}
	if len(x.Entries) != Kept {
		t.Fatalf("%d entries, want %d", len(x.Entries), Kept)
	}
	for _, number := range []uint64{1, 3, x.Last} { // boots with it, asked for, the newest
		if _, ok := x.Find(number); !ok {
			t.Errorf("number %d is gone", number)
		}
	}
	if _, ok := x.Find(2); ok {
		t.Error("number 2 is still there")
	}
}
