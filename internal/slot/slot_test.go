package slot

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/verity"
)

func TestNames(t *testing.T) {
	for _, tt := range []struct {
		e    Entry
		want string
	}{
		{Entry{Slot: A}, "talos-A.conf"},
		{Entry{Slot: B, Tries: &Tries{Left: 3}}, "talos-B+3.conf"},
		{Entry{Slot: B, Tries: &Tries{Left: 2, Done: 1}}, "talos-B+2-1.conf"},
		{Entry{Slot: B, Tries: &Tries{Done: 3}}, "talos-B+0-3.conf"},
		{Entry{Slot: A, Tries: &Tries{Left: 99, Done: 99}}, "talos-A+99-99.conf"},
	} {
		if got := tt.e.Name(); got != tt.want {
			t.Errorf("Name(%+v) = %q, want %q", tt.e, got, tt.want)
		}
		for _, name := range []string{tt.want, strings.ToUpper(tt.want), strings.ToLower(tt.want)} {
			id, tries, ok := ParseName(name)
			if diff := cmp.Diff(tt.e, Entry{Slot: id, Tries: tries}); diff != "" || !ok {
				t.Errorf("ParseName(%q): %t (-want +got):\n%s", name, ok, diff)
			}
		}
	}
	for _, name := range []string{"", "talos-C.conf", "talos-A", "talos-A.conf.new", "talos-A.new", "talos-A+.conf", "talos-A+3-.conf", "talos-A-1.conf", "talos-A+100.conf", "xtalos-A.conf", "debian.conf"} {
		if id, tries, ok := ParseName(name); ok {
			t.Errorf("ParseName(%q) = %v, %v, want that it is not ours", name, id, tries)
		}
	}
}

func TestContent(t *testing.T) {
	e := Entry{Slot: B, Image: Image{"Talos v1.2.3", "v1.2.3", "console=ttyS0 talos.root=x"}, Generation: 7, Tries: &Tries{Left: 3}}
	const want = "title Talos v1.2.3\nversion v1.2.3\nsort-key talos-4294967288\nefi /EFI/talos/B.efi\noptions console=ttyS0 talos.root=x\n"
	if got := e.Content(); got != want {
		t.Errorf("Content = %q, want %q", got, want)
	}
	for _, text := range []string{want, strings.ReplaceAll(want, "\n", "\r\n"), "# by hand\n" + strings.Replace(want, "title ", "title    ", 1),
		strings.Replace(want, "ttyS0 ", "ttyS0\noptions ", 1)} {
		got, err := Parse(e.Name(), []byte(text))
		if diff := cmp.Diff(e, got); diff != "" || err != nil {
			t.Errorf("Parse(%q): %v (-want +got):\n%s", text, err, diff)
		}
	}
	for name, text := range map[string]string{
		"cut":           want[:len(want)/3],
		"empty":         "",
		"other image":   strings.Replace(want, "B.efi", "A.efi", 1),
		"no sort-key":   strings.Replace(want, "sort-key", "# sort-key", 1),
		"short key":     strings.Replace(want, "4294967288", "42", 1),
		"great key":     strings.Replace(want, "4294967288", "9999999999", 1),
		"foreign key":   strings.Replace(want, "talos-4", "debian-4", 1),
		"nothing in it": "\x00\x00\x00",
	} {
		if got, err := Parse(e.Name(), []byte(text)); err == nil {
			t.Errorf("%s: Parse = %+v, want an error", name, got)
		}
	}
}

// TestOrder: what the loader makes of our sort keys, which it compares as text
// and takes the least of, is the order of generations.
func TestOrder(t *testing.T) {
	generations := []uint32{0, 1, 2, 9, 10, 11, 99, 100, 1 << 20, math.MaxUint32 - 1, math.MaxUint32}
	var keys []string
	for _, g := range generations {
		keys = append(keys, sortKey(g))
	}
	slices.Reverse(keys)
	if !slices.IsSorted(keys) {
		t.Errorf("keys from the newest to the oldest = %q, want them sorted", keys)
	}
	want := []Entry{
		{Slot: B, Generation: 9},
		{Slot: B, Generation: 9, Tries: &Tries{Left: 1}},
		{Slot: A, Generation: 9},
		{Slot: A, Generation: 8},
		{Slot: A, Generation: 12, Tries: &Tries{Done: 3}},
		{Slot: A, Generation: 3, Tries: &Tries{Done: 3}},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortStableFunc(got, Less)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sorted (-want +got):\n%s", diff)
	}
}

func TestCurrent(t *testing.T) {
	root := verity.Root{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xff}
	const id, other = "01234567-89AB-CDEF-FF00-000000000000", "01234567-89ab-cdef-ff00-000000000001"
	for _, tt := range []struct {
		ids  map[ID]string
		want ID
		ok   bool
	}{
		{map[ID]string{A: id, B: other}, A, true},
		{map[ID]string{A: other, B: id}, B, true},
		{map[ID]string{A: id}, A, true},
		{map[ID]string{A: other}, "", false},
		{nil, "", false},
	} {
		if got, ok, err := Current(root, tt.ids); got != tt.want || ok != tt.ok || err != nil {
			t.Errorf("Current(%v) = %q, %t, %v, want %q, %t", tt.ids, got, ok, err, tt.want, tt.ok)
		}
	}
	if _, _, err := Current(root, map[ID]string{A: id, B: id}); err == nil {
		t.Error("Current of the same image in both slots: no error")
	}
}

// FuzzParse: what is read as an entry is written so that it is read as the same.
func FuzzParse(f *testing.F) {
	f.Add("talos-A.conf", "title T\nversion v1\nsort-key talos-0000000001\nefi /EFI/talos/A.efi\n")
	f.Add("talos-b+2-1.conf", "sort-key talos-4294967295\r\nefi /efi/TALOS/b.EFI")
	f.Add("talos-A+0-3.conf", "efi")
	f.Add("talos-B.conf", "options a  b\noptions\toptions c\nsort-key talos-0000000009\nefi /EFI/talos/B.efi")
	f.Fuzz(func(t *testing.T, name, text string) {
		e, err := Parse(name, []byte(text))
		if err != nil {
			return
		}
		again, err := Parse(e.Name(), []byte(e.Content()))
		if diff := cmp.Diff(e, again); diff != "" || err != nil {
			t.Errorf("read, written, read: %v (-first +second):\n%s", err, diff)
		}
	})
}
