package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/gpt"
	"talos/internal/gpt/powercut"
	"talos/internal/verity"
	"talos/internal/wipe"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func tableOf(labels ...string) disk.Volume {
	v := disk.Volume{Kind: "gpt"}
	for i, label := range labels {
		label, id, _ := strings.Cut(label, "=")
		v.Table = append(v.Table, disk.Entry{Number: i + 1, Label: label, UUID: id})
	}
	return v
}

func TestSystem(t *testing.T) {
	root := verity.Root{0xab, 15: 1}
	id := strings.ToUpper(root.PartitionID())
	on := func(name string, v disk.Volume) Disk {
		return Disk{Disk: disk.Disk{Name: name, DevPath: "/dev/" + name, Serial: "S-" + name}, Content: v}
	}
	silent := func(d Disk) Disk {
		d.Err = disk.ErrSilent
		return d
	}
	ours := tableOf("EFI", "ROOT-A="+id, "ROOT-B", "META", "STATE")
	other := tableOf("EFI", "ROOT-A=1", "ROOT-B=2", "META", "STATE", "EPHEMERAL")
	const lost = "false the system is read from disk sda, on which STATE and META are not found: its partition table is damaged, or can't be read"
	for _, tt := range []struct {
		name  string
		disks []Disk
		want  string
	}{
		{"from sda: it can't be read", nil, lost},
		{"from sda: no table", []Disk{on("sda", disk.Volume{}), on("sdb", disk.Volume{})}, lost},
		{"from sda: another is installed", []Disk{on("sda", tableOf("ROOT-A="+id)), on("sdb", other)}, lost},
		{"from sda: another has the same", []Disk{on("sda", disk.Volume{}), on("sdb", ours)}, lost},
		{"from sda: two", []Disk{on("sda", ours), on("sdb", ours)}, "false 2 disks are system disks: /dev/sda (serial S-sda), /dev/sdb (serial S-sdb); wipe or take out all but one"},
		{"from sda", []Disk{on("sda", ours), on("sdb", other)}, "/dev/sda true <nil>"},
		{"unfinished", []Disk{{Disk: disk.Disk{Name: "sda", DevPath: "/dev/sda"}, Content: ours, Unfinished: true}}, "false <nil>"},
		{"none", []Disk{on("sda", disk.Volume{}), on("sdb", tableOf("EFI", "data"))}, "false <nil>"},
		{"the running", []Disk{on("sda", other), on("sdb", ours)}, "/dev/sdb true <nil>"},
		{"the running, another silent", []Disk{silent(on("sda", disk.Volume{})), on("sdb", ours)}, "/dev/sdb true <nil>"},
		{"installed, another silent", []Disk{silent(on("sda", disk.Volume{})), on("sdb", other)}, "/dev/sdb true <nil>"},
		{"silent", []Disk{silent(on("sda", disk.Volume{})), on("sdb", disk.Volume{Blank: true})},
			`false this machine's system may be on a disk of which nothing is known: /dev/sda (model "", serial "S-sda"): it does not answer`},
		{"two silent", []Disk{silent(on("sda", disk.Volume{})), silent(on("sdb", disk.Volume{Kind: "mbr", Table: []disk.Entry{{Type: "ee"}}}))},
			`false this machine's system may be on a disk of which nothing is known: /dev/sda (model "", serial "S-sda"): it does not answer; /dev/sdb (model "", serial "S-sdb"): it does not answer`},
		{"a bad sector behind the table", []Disk{silent(on("sda", tableOf("EFI", "data")))}, "false <nil>"},
		{"from sda: silent", []Disk{silent(on("sda", disk.Volume{})), on("sdb", disk.Volume{})}, lost},
		{"no medium", []Disk{{Disk: disk.Disk{Name: "sda", DevPath: "/dev/sda"}, Err: &os.PathError{Op: "open", Path: "/dev/sda", Err: unix.ENOMEDIUM}}}, "false <nil>"},
		{"in slot B", []Disk{on("sda", tableOf("META", "STATE", "ROOT-B="+id))}, "/dev/sda true <nil>"},
		{"installed, not running", []Disk{on("sda", disk.Volume{}), on("sdb", other)}, "/dev/sdb true <nil>"},
		{"root alone", []Disk{on("sda", tableOf("ROOT-A="+id))}, "false <nil>"},
		{"two running", []Disk{on("sda", ours), on("sdb", ours)}, "false 2 disks are system disks: /dev/sda (serial S-sda), /dev/sdb (serial S-sdb); wipe or take out all but one"},
		{"two installed", []Disk{on("sda", other), on("sdb", other)}, "false 2 disks are system disks: /dev/sda (serial S-sda), /dev/sdb (serial S-sdb); wipe or take out all but one"},
	} {
		from := ""
		if strings.HasPrefix(tt.name, "from sda") {
			from = "sda"
		}
		d, ok, err := System(tt.disks, root, from)
		if got := strings.TrimSpace(fmt.Sprintf("%s %t %v", d.DevPath, ok, err)); got != tt.want {
			t.Errorf("%s: System = %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPartitionPath(t *testing.T) {
	for disk, want := range map[string]string{"/dev/vda": "/dev/vda6", "/dev/nvme0n1": "/dev/nvme0n1p6", "/dev/loop3": "/dev/loop3p6", "/dev/mmcblk0": "/dev/mmcblk0p6"} {
		if got := PartitionPath(disk, 6); got != want {
			t.Errorf("PartitionPath(%s, 6) = %s, want %s", disk, got, want)
		}
	}
}

func TestPlanEphemeral(t *testing.T) {
	base := []gpt.Partition{{Number: 1, Label: "META"}, {Number: 2, Label: "STATE"}}
	with := append(base[:2:2], gpt.Partition{Number: 3, Label: "EPHEMERAL"})
	for _, tt := range []struct {
		name         string
		p            []gpt.Partition
		free, growth int64
		want         Change
		err          string
	}{
		{"first boot", base, 5 * gib, 0, Create, ""},
		{"just enough", base, MinEphemeral, 0, Create, ""},
		{"too little", base, MinEphemeral - 1, 0, Nothing, "2147483647 bytes are free on it, and EPHEMERAL needs at least 2147483648"},
		{"there", with, 0, 0, Nothing, ""},
		{"there, a gap elsewhere", with, 5 * gib, 0, Nothing, ""},
		{"grown", with, gib, gib, Grow, ""},
		{"not ours", base[:1], 5 * gib, 0, Nothing, "not a system disk"},
	} {
		got, err := PlanEphemeral(tt.p, tt.free, tt.growth)
		if got != tt.want || (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: PlanEphemeral = %v, %v, want %v, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// systemTable writes the table of a fresh installation, in small.
func systemTable(t *testing.T, d gpt.Device) {
	t.Helper()
	table, err := gpt.New(d, uuid.Nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		label string
		size  int64
	}{{wipe.Meta, mib}, {wipe.State, 100 * mib}} {
		at, err := table.Add(p.label, gpt.TypeLinux, uuid.Nil, p.size)
		if err != nil {
			t.Fatal(err)
		}
		if err := MarkUnmade(d, at.Offset, at.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Write(); err != nil {
		t.Fatal(err)
	}
}

// TestGrowUnmade: EPHEMERAL that has grown before it got its file system still
// gets one, and one that has it keeps it, whatever was where it ends now.
func TestGrowUnmade(t *testing.T) {
	for _, made := range []bool{false, true} {
		d := powercut.New(3*gib, 512)
		systemTable(t, d)
		step := func(want Change) gpt.Partition {
			t.Helper()
			table, err := gpt.Read(d)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := apply(d, table); got != want || err != nil {
				t.Fatalf("apply = %v, %v, want %v", got, err, want)
			}
			p, _ := table.Find(wipe.Ephemeral)
			return p
		}
		p := step(Create)
		if made {
			if err := mark(d, p.Offset, p.Size, ""); err != nil {
				t.Fatal(err)
			}
		}
		d.Resize(5 * gib)
		for at := int64(5*gib - 3*mib); at < 5*gib; at += blockSize {
			if _, err := d.WriteAt([]byte(making), at); err != nil {
				t.Fatal(err)
			}
		}
		p = step(Grow)
		tail := make([]byte, len(making))
		if _, err := d.ReadAt(tail, p.Offset+markAt(p.Size)); err != nil || (string(tail) == making) == made {
			t.Errorf("made %t: after it has grown EPHEMERAL ends with %q, %v", made, tail, err)
		}
	}
}

// TestPowerCut: cut while EPHEMERAL is made, it is there or not, and where it is
// there its beginning is blank, whatever was at that place, and its end says that
// it gets a file system.
func TestPowerCut(t *testing.T) {
	d := powercut.New(3*gib, 512)
	systemTable(t, d)
	const start = 102 * mib
	if _, err := d.WriteAt(bytes.Repeat([]byte("XFSB old"), 10000), start); err != nil {
		t.Fatal(err)
	}
	d.Record()
	table, err := gpt.Read(d)
	if err != nil {
		t.Fatal(err)
	}
	if change, err := apply(d, table); change != Create || err != nil {
		t.Fatalf("apply = %v, %v", change, err)
	}
	seen := map[bool]int{}
	d.Cuts(100, func(name string, _ int, cut *powercut.Disk) {
		table, err := gpt.Read(cut)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p, ok := table.Find(wipe.Ephemeral)
		if seen[ok]++; !ok {
			if change, err := apply(cut, table); change != Create || err != nil {
				t.Errorf("%s: apply again = %v, %v", name, change, err)
			}
			p, _ = table.Find(wipe.Ephemeral)
		}
		head := make([]byte, headSize)
		if _, err := cut.ReadAt(head, p.Offset); err != nil || p.Offset != start || !bytes.Equal(head, make([]byte, headSize)) {
			t.Errorf("%s: EPHEMERAL at %d does not begin blank (%v)", name, p.Offset, err)
		}
		tail := make([]byte, len(making))
		if _, err := cut.ReadAt(tail, p.Offset+markAt(p.Size)); err != nil || string(tail) != making {
			t.Errorf("%s: EPHEMERAL ends with %q (%v)", name, tail, err)
		}
	})
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("cuts left %v, want with and without", seen)
	}
}

func TestPlanDisk(t *testing.T) {
	two := []ExtraPartition{{10 * gib, "/var/mnt/data"}, {0, "/var/lib/longhorn"}}
	for _, tt := range []struct {
		name    string
		p       []ExtraPartition
		content disk.Volume
		want    string
	}{
		{"blank", two, disk.Volume{Blank: true}, "true <nil>"},
		{"an empty table", two, disk.Volume{Kind: "gpt"}, "true <nil>"},
		{"an empty table, and a pool", two, disk.Volume{Kind: "gpt", Others: []string{"zfs"}}, "is not empty: it holds gpt"},
		{"done", two, tableOf("var-mnt-data", "var-lib-longhorn"), "false <nil>"},
		{"bytes", two, disk.Volume{}, "false machine.disks: /dev/sdb is not empty: it holds something that is not known; it is partitioned only when it is blank"},
		{"a file system", two, disk.Volume{Kind: "ext4"}, "is not empty: it holds ext4"},
		{"others", two, tableOf("var-mnt-data", "other"), "it holds gpt, partition 1 var-mnt-data, partition 2 other"},
		{"none", nil, disk.Volume{Blank: true}, "it has no partitions"},
		{"outside", []ExtraPartition{{0, "/mnt/data"}}, disk.Volume{Blank: true}, `mountpoint "/mnt/data": want a path below /var`},
		{"all", []ExtraPartition{{0, "/var"}}, disk.Volume{Blank: true}, "want a path below /var"},
		{"climbs", []ExtraPartition{{0, "/var/../etc"}}, disk.Volume{Blank: true}, "want a path below /var"},
		{"twice", []ExtraPartition{{gib, "/var/a"}, {gib, "/var/a"}}, disk.Volume{Blank: true}, "there is another like it"},
		{"rest first", []ExtraPartition{{0, "/var/a"}, {gib, "/var/b"}}, disk.Volume{Blank: true}, "only the last partition may have no size"},
		{"small", []ExtraPartition{{mib, "/var/a"}}, disk.Volume{Blank: true}, "1048576 bytes are too few"},
	} {
		partition, err := PlanDisk(ExtraDisk{"/dev/sdb", tt.p}, "/dev/sdb", "/dev/sda", tt.content)
		if got := fmt.Sprintf("%t %v", partition, err); !strings.Contains(got, tt.want) {
			t.Errorf("%s: PlanDisk = %s, want %s", tt.name, got, tt.want)
		}
	}
	for _, name := range []string{"/dev/sda", "/dev/disk/by-id/ata-X"} {
		if _, err := PlanDisk(ExtraDisk{name, two}, "/dev/sda", "/dev/sda", disk.Volume{Blank: true}); err == nil || !strings.Contains(err.Error(), "that is the system disk") {
			t.Errorf("PlanDisk of the system disk as %s = %v", name, err)
		}
	}
	long := ExtraPartition{Mountpoint: "/var/mnt/" + strings.Repeat("x", 40) + "/end"}
	if got := long.label(); len(got) != 36 || !strings.HasSuffix(got, "x-end") {
		t.Errorf("label = %q", got)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"10GB": 1e10, "1.5 TiB": 3 << 39, "1024": 1024, "1kB": 1000, "1k": 1000, "2 MiB ": 2 << 20, "0": 0} {
		if got, err := ParseSize(text); got != want || err != nil {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GB", "-1", "1 x", "9999999PB", "1..2GB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5 TiB")
	f.Add("99999999999999999999999999P")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := ParseSize(text); err == nil && n < 0 {
			t.Errorf("ParseSize(%q) = %d", text, n)
		}
	})
}

// TestNoRoom: a disk without room for EPHEMERAL has STATE and META all the same.
func TestNoRoom(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	d, err := gpt.Create(file, gib, 512)
	if err != nil {
		t.Fatal(err)
	}
	systemTable(t, d)
	d.Close()
	nodes, change, err := Prepare(t.Context(), file)
	if err == nil || !strings.Contains(err.Error(), "EPHEMERAL needs at least") || change != Nothing {
		t.Errorf("Prepare = %v, %v, want that there is no room", change, err)
	}
	if diff := cmp.Diff(map[string]string{wipe.Meta: PartitionPath(file, 1), wipe.State: PartitionPath(file, 2)}, nodes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if nodes, _, err := Prepare(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil || nodes != nil {
		t.Errorf("Prepare of a disk that is not there = %v, %v", nodes, err)
	}
}

// TestPrototype: only names that mkfs.xfs reads as such reach it.
func TestPrototype(t *testing.T) {
	var b strings.Builder
	if err := prototype(&b, t.TempDir(), "", map[string][]byte{"b/c/d": nil, "a": nil, "b/a": nil}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Join(strings.Fields(line)[:min(4, len(strings.Fields(line)))], " "))
	}
	want := []string{"a ---600 0 0", "b d--700 0 0", "a ---600 0 0", "c d--700 0 0", "d ---600 0 0", "$", "$"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("prototype (-want +got):\n%s", diff)
	}
	for _, name := range []string{"a b", "../a", "/a", "a\nb", "a/$", "a//b", ""} {
		if err := prototype(&b, t.TempDir(), "", map[string][]byte{name: nil}); err == nil {
			t.Errorf("prototype took the name %q", name)
		}
	}
	if err := prototype(&b, t.TempDir(), "", map[string][]byte{"a": nil, "a/b": nil}); err == nil {
		t.Error("prototype took a file as a folder")
	}
}

func TestAdvice(t *testing.T) {
	for want, v := range map[string]Volume{
		"the kernel argument talos.experimental.wipe=system:STATE":          State("/dev/sda5"),
		"talosctl reset -n NODE --system-labels-to-wipe EPHEMERAL --reboot": Ephemeral("/dev/sda6"),
		"lost by wiping the disk":                                           {Label: "var-mnt-data"},
	} {
		if err := v.advise(errors.New("structure needs cleaning")); !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), want) {
			t.Errorf("advise = %v, want %s", err, want)
		}
	}
}
