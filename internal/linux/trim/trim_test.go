package trim

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const maps = `00400000-01000000 r-xp 00000000 07:00 12 /usr/bin/x
Size:              12288 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
01000000-02000000 r--p 00c00000 07:00 12 /usr/bin/x
Anonymous:             0 kB
02000000-02010000 r--p 01c00000 07:00 12 /usr/bin/x
Anonymous:             4 kB
02010000-02100000 rw-p 01c10000 07:00 12 /usr/bin/x
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 07:00 13 /usr/lib/y
Anonymous:             0 kB
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
`
	got, err := parse(strings.NewReader(maps), "/usr/bin/x")
	want := []region{{0x400000, 0x1000000}, {0x1000000, 0x2000000}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("parse = %x, %v, want %x", got, err, want)
	}
}

// TestSelf: the program goes on as before.
func TestSelf(t *testing.T) {
	for range 3 {
		if err := Self(); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Repeat("x", 3); got != "xxx" {
		t.Errorf("after Self the program computes %q", got)
	}
}
