package disk

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"talos/internal/linux/netns"
)

// image makes a sparse file.
func image(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	return name
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// kinds are those that util-linux calls by another name.
var kinds = map[string]string{"crypto_LUKS": "luks", "dos": "mbr", "LVM2_member": "lvm2-pv"}

// TestLikeBlkid: what the usual tools made is recognised as util-linux's blkid
// does, by kind, id, label and size of blocks.
func TestLikeBlkid(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		want string
		size int64
		make string // @ is the image
	}{
		{"xfs", 512 * mib, "mkfs.xfs -q -L ephemeral @"},
		{"ext2", 16 * mib, "mkfs.ext2 -q -L two @"},
		{"ext3", 16 * mib, "mkfs.ext3 -q @"},
		{"ext4", 64 * mib, "mkfs.ext4 -q -L four -b 4096 @"},
		{"vfat", 2 * mib, "mkfs.vfat -F 12 -n TWELVE @"},
		{"vfat", 32 * mib, "mkfs.vfat -F 16 -n SIXTEEN @"},
		{"vfat", 64 * mib, "mkfs.vfat -F 32 -n EFI @"},
		{"vfat", 64 * mib, "mkfs.vfat -F 32 @"},
		{"swap", 8 * mib, "mkswap -q -L pages @"},
		{"luks", 32 * mib, "cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 --key-file testdata/key @"},
		{"luks", 32 * mib, "cryptsetup -q luksFormat --type luks2 --label secret --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file testdata/key @"},
		{"squashfs", 0, "mksquashfs testdata @ -quiet -noappend"},
		{"iso9660", 0, "xorriso -as mkisofs -quiet -V CIDATA -o @ testdata"},
		{"gpt", 64 * mib, "sgdisk -n 1:2048:+8M -c 1:EFI -t 1:ef00 -n 5:0:0 -c 5:Größe @"},
	} {
		t.Run(c.want, func(t *testing.T) {
			fields := strings.Fields(c.make)
			netns.Need(t, fields[0], "blkid")
			name := image(t, c.size)
			for i, f := range fields {
				if f == "@" {
					fields[i] = name
				}
			}
			run(t, fields[0], fields[1:]...)
			got, err := Probe(name)
			if err != nil {
				t.Fatal(err)
			}
			theirs := map[string]string{}
			for line := range strings.Lines(run(t, "blkid", "-p", "-o", "export", name)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				theirs[key] = strings.ReplaceAll(value, `\ `, " ")
			}
			kind := theirs["TYPE"] + theirs["PTTYPE"]
			if kinds[kind] != "" {
				kind = kinds[kind]
			}
			if got.Kind != c.want || kind != c.want {
				t.Errorf("kind = %q, blkid's = %q, want %q", got.Kind, kind, c.want)
			}
			if theirs := theirs["UUID"] + theirs["PTUUID"]; got.UUID != theirs {
				t.Errorf("UUID = %q, blkid's = %q", got.UUID, theirs)
			}
			if got.Label != theirs["LABEL"] {
				t.Errorf("label = %q, blkid's = %q", got.Label, theirs["LABEL"])
			}
			if got.Empty() || got.Others != nil {
				t.Errorf("empty = %t, also %v", got.Empty(), got.Others)
			}
			if got.ProbedSize > got.Size {
				t.Errorf("covers %d bytes of %d", got.ProbedSize, got.Size)
			}
		})
	}
}

// TestMBR: the four partitions of an old table, by blkid's ids.
func TestMBR(t *testing.T) {
	netns.Need(t, "sfdisk")
	name := image(t, 64<<20)
	cmd := exec.Command("sfdisk", "-q", name)
	cmd.Stdin = strings.NewReader("label: dos\nlabel-id: 0x1234abcd\nstart=2048, size=16384, type=c, bootable\nstart=18432, type=83\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	got, err := Probe(name)
	if err != nil {
		t.Fatal(err)
	}
	want := Volume{Kind: "mbr", UUID: "1234abcd", BlockSize: 512, Table: []Entry{
		{Number: 1, Offset: 1 << 20, Size: 8 << 20, Type: "0c", UUID: "1234abcd-01"},
		{Number: 2, Offset: 9 << 20, Size: 55 << 20, Type: "83", UUID: "1234abcd-02"},
	}}
	if diff := cmp.Diff(want, got.Volume); diff != "" {
		t.Errorf("Probe (-want +got):\n%s", diff)
	}
}

// TestTable: partitions as sgdisk made them; with the first table damaged the
// copy counts, with both there is none.
func TestTable(t *testing.T) {
	netns.Need(t, "sgdisk")
	name := image(t, 64<<20)
	const id = "11111111-2222-4333-8444-555555555555"
	run(t, "sgdisk", "-n", "1:2048:+8M", "-c", "1:EFI", "-t", "1:ef00", "-u", "1:"+id, "-n", "5:0:+1M", "-c", "5:Größe", name)
	want := []Entry{
		{Number: 1, Offset: 1 << 20, Size: 8 << 20, Type: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", UUID: id, Label: "EFI"},
		{Number: 5, Offset: 9 << 20, Size: 1 << 20, Type: "0fc63daf-8483-4772-8e79-3d69d8477de4", Label: "Größe"},
	}
	check := func(when string) {
		t.Helper()
		got, err := Probe(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Table) == 2 {
			got.Table[1].UUID = "" // random
		}
		if diff := cmp.Diff(want, got.Table); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("whole")
	damage(t, name, 512+20, "x")
	check("first header damaged")
	damage(t, name, 64<<20-512+60, "x")
	got, err := Probe(name)
	if err != nil || got.Kind != "mbr" || len(got.Table) != 1 || got.Table[0].Type != "ee" {
		t.Errorf("both damaged: %+v, %v, want the protective MBR alone", got, err)
	}
}

// TestHostileTable: with checksums that are right, what is in a table is still
// anybody's: sizes that are none, and names that a terminal would obey.
func TestHostileTable(t *testing.T) {
	const sector = 4096
	disk := make([]byte, 64*sector)
	entries := disk[2*sector:][:128*128]
	for i, e := range []struct {
		first, last uint64
		name        string
	}{
		{6, 9, "a\x1b[2J\nb "},
		{1<<52 + 6, 1<<52 + 9, "wraps"}, // times 4096 it is 6 again
		{6, 1<<52 + 5, "as large as all"},
		{9, 6, "backwards"},
	} {
		b := entries[128*i:]
		copy(b, "type of it......id of it........")
		le.PutUint64(b[32:], e.first)
		le.PutUint64(b[40:], e.last)
		for j, c := range utf16.Encode([]rune(e.name)) {
			le.PutUint16(b[56+2*j:], c)
		}
	}
	head := disk[sector:][:92]
	copy(head, "EFI PART")
	for at, v := range map[int]uint64{24: 1, 40: 6, 48: 1<<64 - 1, 72: 2} {
		le.PutUint64(head[at:], v)
	}
	for at, v := range map[int]uint32{12: 92, 80: 128, 84: 128, 88: crc32.ChecksumIEEE(entries)} {
		le.PutUint32(head[at:], v)
	}
	le.PutUint32(head[16:], crc32.ChecksumIEEE(head))
	v, err := Recognise(bytes.NewReader(disk), uint64(len(disk)), sector)
	if err != nil || v.Kind != "gpt" || len(v.Table) != 1 {
		t.Fatalf("Recognise = %+v, %v, want a table with one partition", v, err)
	}
	if got := v.Table[0]; got.Label != "a?[2J?b " || got.Offset != 6*sector || got.Size != 4*sector {
		t.Errorf("partition = %+v", got)
	}
}

func damage(t *testing.T, name string, at int64, bytes string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(bytes), at); err != nil {
		t.Fatal(err)
	}
}

// TestTwice: what is left of an earlier use shows.
func TestTwice(t *testing.T) {
	netns.Need(t, "xorriso", "sgdisk")
	name := image(t, 0)
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", "CIDATA", "-o", name, "testdata")
	if err := os.Truncate(name, 64<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "sgdisk", "-n", "1:2048:+8M", name)
	got, err := Probe(name)
	if err != nil || got.Kind != "iso9660" || !cmp.Equal(got.Others, []string{"gpt"}) || len(got.Table) != 1 {
		t.Errorf("Probe = %+v, %v, want iso9660, also gpt with its partition", got, err)
	}
}

// sparse is a device with bytes at some places and zeros elsewhere.
type sparse struct {
	size  int64
	parts map[int64]string
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > s.size {
		return 0, io.EOF
	}
	clear(p)
	for at, part := range s.parts {
		if start := max(at, off); start < min(at+int64(len(part)), off+int64(len(p))) {
			copy(p[start-off:], part[start-at:])
		}
	}
	return len(p), nil
}

// TestMarks: what needs devices, or tools that are seldom there, by the bytes
// that its format's description demands.
func TestMarks(t *testing.T) {
	const size = 128 << 20
	id := "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"
	const idText = "01234567-89ab-cdef-0123-456789abcdef"
	pad := func(s string, n int) string { return s + strings.Repeat("\x00", n-len(s)) }
	md := func(sector byte) string {
		return pad("\xfc\x4e\x2b\xa9\x01\x00\x00\x00", 16) + id + pad("host:0", 112) + string([]byte{sector})
	}
	uberblock := pad("\x0c\xb1\xba\x00", 1024)
	pair := func(key, kind, value string) string {
		key += strings.Repeat("\x00", -len(key)&3)
		n := 20 + len(key) + len(value)
		return string(be.AppendUint32(nil, uint32(n))) + pad("", 4) + string(be.AppendUint32(nil, uint32(len(strings.TrimRight(key, "\x00"))))) + key + kind + "\x00\x00\x00\x01" + value
	}
	pvHead := pad("LVM2 001", 8) + strings.Repeat("a", 32) + "\x00\x00\x00\x08\x00\x00\x00\x00"
	pvTail := pad("\x20\x00\x00\x00"+pvHead, 512-20)
	pv := "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00" + string(le.AppendUint32(nil, lvmSum([]byte(pvTail)))) + pvTail
	for _, c := range []struct {
		name  string
		parts map[int64]string
		want  Volume
	}{
		{"blank", nil, Volume{Blank: true}},
		{"unknown", map[int64]string{size - 1: "x"}, Volume{}},
		{"raid 1.2", map[int64]string{4096: md(8)}, Volume{Kind: "linux_raid_member", UUID: idText, Label: "host:0"}},
		{"raid 1.1", map[int64]string{0: md(0)}, Volume{Kind: "linux_raid_member", UUID: idText, Label: "host:0"}},
		{"raid elsewhere", map[int64]string{4096: md(0)}, Volume{}},
		{"raid 0.90", map[int64]string{size - 64<<10: pad("\xfc\x4e\x2b\xa9", 20) + "\x67\x45\x23\x01" + pad("", 28) + "\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00"},
			Volume{Kind: "linux_raid_member", UUID: "01234567-0000-0001-0000-000200000003"}},
		{"lvm", map[int64]string{512: pv}, Volume{Kind: "lvm2-pv", UUID: "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa", ProbedSize: size}},
		{"lvm with a wrong sum", map[int64]string{512: pv[:16] + "x" + pv[17:]}, Volume{}},
		{"bluestore", map[int64]string{0: "bluestore block device\n" + idText + "\n"}, Volume{Kind: "bluestore", UUID: idText}},
		{"bcache", map[int64]string{4096 + 24: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81" + id}, Volume{Kind: "bcache", UUID: idText}},
		{"btrfs", map[int64]string{64<<10 + 32: id, 64<<10 + 64: "_BHRfS_M", 64<<10 + 112: "\x00\x00\x00\x08", 64<<10 + 144: "\x00\x10\x00\x00", 64<<10 + 299: "data"},
			Volume{Kind: "btrfs", UUID: idText, Label: "data", BlockSize: 4096, FilesystemBlockSize: 4096, ProbedSize: size}},
		{"exfat", map[int64]string{3: "EXFAT   ", 72: "\x00\x00\x04", 100: "\x01\x02\x03\x04", 108: "\x09"}, Volume{Kind: "exfat", UUID: "0403-0201", BlockSize: 512, ProbedSize: size}},
		{"ntfs", map[int64]string{3: "NTFS    \x00\x02", 40: "\x00\x00\x04", 72: "\x01\x02\x03\x04\x05\x06\x07\x08", 510: "\x55\xaa"},
			Volume{Kind: "ntfs", UUID: "0807060504030201", BlockSize: 512, ProbedSize: size}},
		{"f2fs", map[int64]string{1024: "\x10\x20\xf5\xf2", 1040: "\x0c", 1024 + 36: "\x00\x80", 1024 + 108: id, 1024 + 124: "d\x00a\x00"},
			Volume{Kind: "f2fs", UUID: idText, Label: "da", BlockSize: 4096, FilesystemBlockSize: 4096, ProbedSize: size}},
		{"verity", map[int64]string{0: "verity\x00\x00\x01", 16: id}, Volume{Kind: "DM_verity_hash", UUID: idText}},
		{"META", map[int64]string{0: "\x5a\x4b\x3c\x2d", 256<<10 - 4: "\xa5\xb4\xc3\xd2"}, Volume{Kind: "talosmeta", ProbedSize: 512 << 10}},
		{"second copy of META", map[int64]string{256 << 10: "\x5a\x4b\x3c\x2d", 512<<10 - 4: "\xa5\xb4\xc3\xd2"}, Volume{Kind: "talosmeta", ProbedSize: 512 << 10}},
		{"META cut short", map[int64]string{0: "\x5a\x4b\x3c\x2d"}, Volume{}},
		{"zfs", map[int64]string{128 << 10: strings.Repeat(uberblock, 4), 16 << 10: pad("", 12) +
			pair("version", "\x00\x00\x00\x08", "\x00\x00\x00\x00\x00\x00\x13\x88") + pair("name", "\x00\x00\x00\x09", "\x00\x00\x00\x04tank") +
			pair("pool_guid", "\x00\x00\x00\x08", "\x00\x00\x00\x00\x00\x00\x00\x2a")}, Volume{Kind: "zfs", Label: "tank", UUID: "42"}},
		{"zfs left over", map[int64]string{128 << 10: strings.Repeat(uberblock, 3)}, Volume{}},
		{"label of control characters", map[int64]string{64<<10 + 64: "_BHRfS_M", 64<<10 + 299: "\x1b[2J\xffx"}, Volume{Kind: "btrfs", Label: "[2Jx"}},
	} {
		got, err := Recognise(sparse{size, c.parts}, size, 512)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

type broken struct{ sparse }

var errBroken = errors.New("input/output error")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off > 32<<10 {
		return 0, errBroken
	}
	return b.sparse.ReadAt(p, off)
}

// TestBroken: a disk that can't be read is not an empty one; what could be read counts.
func TestBroken(t *testing.T) {
	got, err := Recognise(broken{sparse{128 << 20, nil}}, 128<<20, 512)
	if !errors.Is(err, errBroken) || got.Empty() {
		t.Errorf("Recognise = %+v, %v, want the error, and not an empty volume", got, err)
	}
	got, err = Recognise(broken{sparse{128 << 20, map[int64]string{0: "hsqs", 28: "\x04"}}}, 128<<20, 512)
	if !errors.Is(err, errBroken) || got.Kind != "squashfs" {
		t.Errorf("Recognise = %+v, %v, want the error and squashfs", got, err)
	}
}

// TestTiny: sizes at which nothing fits.
func TestTiny(t *testing.T) {
	for _, size := range []uint64{0, 1, 511, 512, 4096, 1 << 63, 1<<64 - 1} {
		got, err := Recognise(bytes.NewReader(make([]byte, min(size, 4096))), size, 0)
		if got.Kind != "" || err != nil {
			t.Errorf("Recognise(%d bytes) = %+v, %v, want nothing", size, got, err)
		}
	}
	if _, err := Probe("/dev/null"); err == nil {
		t.Error("Probe(/dev/null) succeeded")
	}
}

// FuzzRecognise: bytes at the start of a disk, others at its end.
func FuzzRecognise(f *testing.F) {
	f.Add([]byte("XFSB"), []byte{}, uint64(1<<20), uint16(512))
	f.Add([]byte("hsqs"), []byte("EFI PART"), uint64(64<<20), uint16(4096))
	f.Add([]byte(strings.Repeat("\x00", 1024+56)+"\x53\xef"), []byte{}, uint64(1<<20), uint16(512))
	f.Add([]byte("\xeb\x58\x90mkfs.fat\x00\x02\x01\x20\x00\x02\x00\x00\x00\x00\xf8"+strings.Repeat("\x00", 510-22)+"\x55\xaa"), []byte{}, uint64(64<<20), uint16(512))
	f.Fuzz(func(t *testing.T, head, tail []byte, size uint64, sector uint16) {
		disk := sparse{int64(size >> 1), map[int64]string{0: string(head), max(0, int64(size>>1)-int64(len(tail))): string(tail)}}
		v, err := Recognise(disk, size>>1, uint(sector))
		if err != nil {
			t.Fatalf("an error without a read that failed: %v", err)
		}
		for i, e := range v.Table {
			if e.Size == 0 || i > 0 && e.Number <= v.Table[i-1].Number {
				t.Errorf("partition %+v after %+v", e, v.Table[:i])
			}
		}
		if v.Kind == "" && (v.UUID != "" || v.Label != "") {
			t.Errorf("nothing recognised, but %+v", v)
		}
	})
}

// FuzzPool: the description of a pool, which carries no checksum that we look at.
func FuzzPool(f *testing.F) {
	f.Add([]byte(strings.Repeat("\x00", 12) + "\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x04tank"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if name, _ := pool(data); len(name) > len(data) {
			t.Errorf("a name of %d bytes out of %d", len(name), len(data))
		}
	})
}
