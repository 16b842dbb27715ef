package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"talos/internal/gpt/powercut"
)

const mib = 1 << 20

var diskID = uuid.MustParse("01020304-0506-0708-090a-0b0c0d0e0f10")

func id(n byte) uuid.UUID { return uuid.UUID{15: n, 0: n} }

// three writes a table of three partitions.
func three(t *testing.T, d Device) []Partition {
	t.Helper()
	table, err := New(d, diskID)
	if err != nil {
		t.Fatal(err)
	}
	var out []Partition
	for i, label := range []string{"EFI", "META", "STATE"} {
		p, err := table.Add(label, []uuid.UUID{TypeEFI, TypeLinux, TypeLinux}[i], id(byte(i+1)), int64(i+1)*mib)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	if err := table.Write(); err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, d Device) *Table {
	t.Helper()
	table, err := Read(d)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTable(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			d := powercut.New(64*mib, sector)
			if _, err := Read(d); !errors.Is(err, ErrNone) {
				t.Errorf("Read of an empty disk = %v, want ErrNone", err)
			}
			want := []Partition{
				{1, "EFI", TypeEFI, id(1), 1 * mib, 1 * mib},
				{2, "META", TypeLinux, id(2), 2 * mib, 2 * mib},
				{3, "STATE", TypeLinux, id(3), 4 * mib, 3 * mib},
			}
			if diff := cmp.Diff(want, three(t, d)); diff != "" {
				t.Errorf("added (-want +got):\n%s", diff)
			}
			table := read(t, d)
			if diff := cmp.Diff(want, table.Partitions()); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
			if p, ok := table.Find("STATE"); !ok || p.Number != 3 {
				t.Errorf("Find(STATE) = %+v, %t", p, ok)
			}
			if p, ok := table.Find("ROOT-A"); ok {
				t.Errorf("Find(ROOT-A) = %+v, want nothing", p)
			}
			if got := table.Free(); got != 56*mib { // the last megabyte has the copy
				t.Errorf("Free = %d, want 56 MiB", got/mib)
			}
			p, err := table.Add("EPHEMERAL", TypeLinux, uuid.Nil, 0)
			if err != nil || p.Number != 4 || p.Offset != 7*mib || p.Size != 56*mib || p.ID == uuid.Nil {
				t.Errorf("Add of the rest = %+v, %v", p, err)
			}
			if _, err := table.Add("MORE", TypeLinux, uuid.Nil, mib); err == nil {
				t.Error("Add on a full disk succeeded")
			}
		})
	}
}

// TestOthersRead: sgdisk finds nothing to complain about, also after growth.
func TestOthersRead(t *testing.T) {
	sgdisk, err := exec.LookPath("sgdisk")
	if err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	name := filepath.Join(t.TempDir(), "disk")
	d, err := Create(name, 64*mib, 512)
	if err != nil {
		t.Fatal(err)
	}
	three(t, d)
	if err := errors.Join(d.Truncate(100*mib), d.Close()); err != nil {
		t.Fatal(err)
	}
	d, err = Open(name, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table := read(t, d)
	if n, err := table.Growth(3); n != 92*mib || err != nil {
		t.Errorf("Growth = %d, %v, want 92 MiB", n, err)
	}
	p, err := table.Grow(3)
	if err != nil || p.Size != 95*mib || p.Number != 3 {
		t.Errorf("Grow = %+v, %v, want 95 MiB", p, err)
	}
	if err := table.Write(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sgdisk, "-v", "-p", name).CombinedOutput()
	for _, want := range []string{"No problems found", "EFI", "META", "STATE", strings.ToUpper(diskID.String()), "95.0 MiB"} {
		if !strings.Contains(string(out), want) || err != nil {
			t.Errorf("sgdisk: %v, want %q:\n%s", err, want, out)
		}
	}
}

// TestPowerCut: a cut while a partition is added, or grows with its disk, leaves
// the table that was or the one that is wanted.
func TestPowerCut(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for name, change := range map[string]func(d *powercut.Disk) error{
			"add": func(d *powercut.Disk) error {
				table := read(t, d)
				_, err := table.Add("EPHEMERAL", TypeLinux, id(9), 0)
				return errors.Join(err, table.Write())
			},
			"grow": func(d *powercut.Disk) error {
				table := read(t, d)
				_, err := table.Grow(3)
				return errors.Join(err, table.Write())
			},
		} {
			t.Run(fmt.Sprintf("%s %d", name, sector), func(t *testing.T) {
				d := powercut.New(64*mib, sector)
				three(t, d)
				before := read(t, d).Partitions()
				d.Resize(80 * mib)
				d.Record()
				if err := change(d); err != nil {
					t.Fatal(err)
				}
				after := read(t, d).Partitions()
				if cmp.Equal(before, after) {
					t.Fatal("nothing changed")
				}
				seen := map[string]int{}
				d.Cuts(200, func(name string, _ int, disk *powercut.Disk) {
					table, err := Read(disk)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					switch got := table.Partitions(); {
					case cmp.Equal(got, before):
						seen["old"]++
					case cmp.Equal(got, after):
						seen["new"]++
					default:
						t.Fatalf("%s: %+v", name, got)
					}
				})
				if seen["old"] == 0 || seen["new"] == 0 {
					t.Errorf("cuts left %v, want both tables", seen)
				}
			})
		}
	}
}

// TestNewHidesTheOld: a new table keeps nothing of the first sector, and is not
// there before all of it is.
func TestNewHidesTheOld(t *testing.T) {
	d := powercut.New(64*mib, 512)
	if _, err := d.WriteAt(bytes.Repeat([]byte("boot"), 110), 0); err != nil {
		t.Fatal(err)
	}
	d.Record()
	three(t, d)
	first := make([]byte, 512)
	d.Cuts(100, func(name string, syncs int, disk *powercut.Disk) {
		if _, err := disk.ReadAt(first, 0); err != nil {
			t.Fatal(err)
		}
		if signed := first[510] == 0x55; signed && syncs < 2 {
			t.Errorf("%s: there is a protective MBR", name)
		}
	})
	if _, err := d.ReadAt(first, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first[:446], make([]byte, 446)) || first[450] != 0xee {
		t.Errorf("the first sector is % x, want zeros and an entry of type ee", first)
	}
}

// sealHeader gives the header in b right checksums for its entries.
func sealHeader(b []byte, entries []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(b[16:], 0)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:92]))
}

// FuzzRead: whatever is on a disk, what is read of it lies within it, nothing
// over another. Checksums are made right, or nothing would get past them.
func FuzzRead(f *testing.F) {
	d := powercut.New(8*mib, 512)
	table, err := New(d, diskID)
	if err == nil {
		_, err = table.Add("A", TypeLinux, id(1), 2*mib)
	}
	if err = errors.Join(err, table.Write()); err != nil {
		f.Fatal(err)
	}
	header, entries := make([]byte, 512), make([]byte, 256)
	if _, err := d.ReadAt(header, 512); err != nil {
		f.Fatal(err)
	}
	if _, err := d.ReadAt(entries, 1024); err != nil {
		f.Fatal(err)
	}
	f.Add(header, entries)
	f.Add(header[:92], append(bytes.Clone(entries[:128]), entries[:128]...))
	f.Fuzz(func(t *testing.T, header, entries []byte) {
		d := powercut.New(8*mib, 512)
		sector, table := make([]byte, 512), make([]byte, 128*128)
		copy(sector, header)
		copy(table, entries)
		sealHeader(sector, table)
		for at, data := range map[int64][]byte{512: sector, 1024: table} {
			if _, err := d.WriteAt(data, at); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Read(d)
		if err != nil {
			return
		}
		for _, p := range got.Partitions() {
			if p.Offset <= 0 || p.Size <= 0 || p.Offset+p.Size > d.Size() || p.Number < 1 || p.Number > 128 {
				t.Errorf("partition %+v", p)
			}
		}
		if got.Free() > d.Size() {
			t.Errorf("Free = %d", got.Free())
		}
	})
}

// stubborn is a disk whose partitions the kernel does not change.
type stubborn struct {
	*powercut.Disk
	err error
}

func (s stubborn) lastPartition() (int, error)             { return 1, nil }
func (s stubborn) addPartition(int, int64, int64) error    { return s.err }
func (s stubborn) resizePartition(int, int64, int64) error { return s.err }
func (s stubborn) deletePartition(int) error               { return s.err }

// TestErrKernel: a table that the kernel does not take is on the disk, and the
// error says so; one that can't be written is another matter.
func TestErrKernel(t *testing.T) {
	busy := errors.New("busy")
	d := stubborn{powercut.New(64*mib, 512), busy}
	table, err := New(d, diskID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.Add("one", TypeLinux, id(1), mib); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(); !errors.Is(err, ErrKernel) || !errors.Is(err, busy) {
		t.Errorf("Write of a new table = %v", err)
	}
	table, err = Read(d)
	if err != nil {
		t.Fatalf("Read after it: %v", err)
	}
	if _, err := table.Add("two", TypeLinux, id(2), mib); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(); !errors.Is(err, ErrKernel) {
		t.Errorf("Write of a changed table = %v", err)
	}
	if table, err = Read(d); err != nil || len(table.Partitions()) != 2 {
		t.Errorf("Read after that = %v, %v, want both partitions", table, err)
	}
	d.Fail = func(powercut.Op) error { return busy }
	if _, err := table.Add("three", TypeLinux, id(3), mib); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(); err == nil || errors.Is(err, ErrKernel) {
		t.Errorf("Write to a disk that fails = %v", err)
	}
}
