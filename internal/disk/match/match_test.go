package match

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"talos/internal/resources/block"
)

// disks are one of each kind; stick is what the system came from.
var disks = map[string]Facts{
	"vda":     {"dev_path": "/dev/vda", "size": uint64(10 << 30), "transport": "virtio", "sector_size": uint64(512)},
	"sda":     {"dev_path": "/dev/sda", "size": uint64(4e12), "transport": "sata", "model": "WDC WD40EFRX", "serial": "WD-1", "rotational": true, "wwid": "naa.50014ee2b1"},
	"nvme0n1": {"dev_path": "/dev/nvme0n1", "size": uint64(1e12), "transport": "nvme", "model": "Samsung SSD 980", "symlinks": []string{"/dev/disk/by-id/nvme-S64D"}},
	"stick":   {"dev_path": "/dev/sdb", "size": uint64(16e9), "transport": "usb", "readonly": true, "pretty_size": "16 GB"},
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct{ expression, want string }{
		{`true`, "nvme0n1 sda stick vda"},
		{`false`, ""},
		{`!system_disk`, "nvme0n1 sda vda"},
		{`system_disk`, "stick"},
		{`disk.dev_path == "/dev/sda"`, "sda"},
		{`disk.transport == 'nvme' && !system_disk`, "nvme0n1"},
		{`disk.size == 10u * GiB`, "vda"},
		{`disk.size >= 1u * TB && disk.size < 2u * TB`, "nvme0n1"},
		{`disk.size > 3u * TiB`, "sda"},
		{`disk.size <= 16000000000u`, "stick vda"},
		{`disk.size > 15u * kB * MB`, "nvme0n1 sda stick"},
		{`disk.rotational`, "sda"},
		{`disk.readonly || disk.cdrom`, "stick"},
		{`disk.model.startsWith("Samsung")`, "nvme0n1"},
		{`disk.model.matches("^WDC.*40")`, "sda"},
		{`disk.model == ""`, "stick vda"},
		{`has(disk.serial)`, "sda"},
		{`"/dev/disk/by-id/nvme-S64D" in disk.symlinks`, "nvme0n1"},
		{`disk.symlinks.exists(s, s.contains("by-id"))`, "nvme0n1"},
		{`disk.secondary_disks.size() == 0 && disk.sector_size == 512u`, "vda"},
		{`disk.pretty_size == "16 GB"`, "stick"},
		{"disk.transport == 'sata' // of the old ones\n&& disk.wwid.startsWith('naa.')", "sda"},
		{`disk.size / GiB == 10u ? disk.transport == "virtio" : false`, "vda"},
	} {
		e, err := Compile(tt.expression)
		if err != nil {
			t.Errorf("Compile(%s) = %v", tt.expression, err)
			continue
		}
		var got []string
		for name, facts := range disks {
			ok, err := e.Matches(facts, name == "stick")
			if err != nil {
				t.Errorf("%s of %s: %v", tt.expression, name, err)
			}
			if ok {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s matches %v, want %s", tt.expression, got, tt.want)
		}
	}
}

func TestCompileSaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct{ expression, want string }{
		{``, "line 1, column 1: Syntax error"},
		{`disk.size >`, "line 1, column 12: Syntax error"},
		{`disk.modle == "a"`, "line 1, column 5: undefined field 'modle'; disk has bus_path, cdrom, dev_path, "},
		{"disk.rotational &&\n disc.size > 1u", "line 2, column 2: undeclared reference to 'disc'"},
		{`disk.size > 100 * GiB`, "sizes are unsigned, such as 100u * GiB"},
		{`disk.size > 100`, "sizes are unsigned, such as 100u * GiB"},
		{`disk.size`, "it is of type uint, neither true nor false"},
		{`dyn(disk.size)`, "it is of type dyn, neither true nor false"},
		{`disk`, "it is of type a disk, neither true nor false"},
		{`disk.name == 1 && disk.a == 1 && disk.b == 1 && disk.c == 1`, "; and more"},
		{`disk.model.matches("(")`, "missing closing )"},
		{strings.Repeat("(", maxDepth+1) + "true" + strings.Repeat(")", maxDepth+1), "recursion limit"},
		{`disk.model == "` + strings.Repeat("x", maxLength) + `"`, "size exceeds limit"},
		{`Disk{size: 3u}.size == 3u`, "undeclared reference to 'Disk'"},
	} {
		_, err := Compile(tt.expression)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Compile(%.40s) = %v, want %s", tt.expression, err, tt.want)
		}
	}
}

func TestWhatAnExpressionMayCost(t *testing.T) {
	for _, tt := range []struct{ expression, want string }{
		{`disk.symlinks.all(a, disk.symlinks.all(b, disk.symlinks.all(c, a != "" || b != c)))`, "cost limit"},
		{`10u / (disk.size - disk.size) == 1u`, "division by zero"},
		{`disk.size - disk.size - 1u == 1u`, "overflow"},
		{`disk.symlinks[1000] == ""`, "index out of bounds"},
	} {
		e, err := Compile(tt.expression)
		if err != nil {
			t.Errorf("Compile(%s) = %v", tt.expression, err)
			continue
		}
		links := make([]string, 100)
		for i := range links {
			links[i] = "/dev/disk/by-id/x"
		}
		begun := time.Now()
		if ok, err := e.Matches(Facts{"symlinks": links}, false); ok || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s = %v, %v, want %s", tt.expression, ok, err, tt.want)
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("%s took %v", tt.expression, took)
		}
	}
}

// TestFieldsAreThoseOfTheResource: what talosctl get disks shows can be asked for.
func TestFieldsAreThoseOfTheResource(t *testing.T) {
	var want []string
	kinds := map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "bool", reflect.Uint: "uint", reflect.Uint64: "uint", reflect.Slice: "list(string)"}
	for f := range reflect.TypeFor[block.DiskSpec]().Fields() {
		name := f.Tag.Get("yaml")
		want = append(want, name)
		if typ := fields[name]; typ == nil || typ.String() != kinds[f.Type.Kind()] {
			t.Errorf("%s is %v, want %s", name, typ, kinds[f.Type.Kind()])
		}
	}
	slices.Sort(want)
	if got := Fields(); !slices.Equal(got, want) {
		t.Errorf("Fields() = %v, want %v", got, want)
	}
}

// FuzzCompile: whatever a user writes is an error on one line, or true or false
// of every disk or an error, soon.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`disk.transport == "nvme" && disk.size >= 100u * GiB && !system_disk`, `disk.symlinks.exists(s, s.matches("by-id/.*"))`, `has(disk.serial) ? true : dyn(disk) == disk`,
		`[disk.size, 1u].map(x, x * MB).size() > 1`, `{"a": disk.model}["a"] in ["b"]`, `timestamp(disk.serial) > timestamp("2026-01-01T00:00:00Z")`, `type(disk) == string`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		begun := time.Now()
		e, err := Compile(s)
		if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("Compile(%q) = %q, which has several lines", s, err)
		}
		for _, d := range disks {
			if err == nil {
				_, _ = e.Matches(d, true)
			}
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("%q took %v", s, took)
		}
	})
}
