package qemu

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"talos/internal/gpt"
	"talos/internal/volume"
)

const someEvents = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}
{"return": {}}
{"timestamp": {"seconds": 1795872064, "microseconds": 40930}, "event": "RTC_CHANGE", "data": {"offset": -1, "qom-path": "/machine"}}
{"timestamp": {"seconds": 1795872070, "microseconds": 0}, "event": "WATCHDOG", "data": {"action": "reset"}}
{"timestamp": {"seconds": 1795872071, "microseconds": 0}, "event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}
`

const powerOff = `{"timestamp": {"seconds": 1795872078, "microseconds": 553985}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}
`

func TestParseEvents(t *testing.T) {
	want := []Event{
		{time.Unix(1795872064, 40930_000), "RTC_CHANGE", ""}, {time.Unix(1795872070, 0), "WATCHDOG", "reset"},
		{time.Unix(1795872071, 0), "RESET", "guest-reset"}, {time.Unix(1795872078, 553985_000), "SHUTDOWN", "guest-shutdown"},
	}
	got := parseEvents([]byte("5, \"torn\"}\n" + someEvents + powerOff + `{"timestamp": {"sec`))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestPower(t *testing.T) {
	for name, tc := range map[string]struct{ events, want string }{
		"never on":               {"", ""},
		"runs":                   {someEvents, ""},
		"turned itself off":      {someEvents + powerOff, "poweroff"},
		"many events before":     {strings.Repeat(someEvents, 2000) + powerOff, "poweroff"},
		"qemu got a signal":      {someEvents + strings.ReplaceAll(powerOff, "guest-shutdown", "host-signal"), ""},
		"the kernel has crashed": {someEvents + strings.ReplaceAll(powerOff, "guest-shutdown", "guest-panic"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			v := VM{Dir: t.TempDir()}
			if err := os.Mkdir(v.run(), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(v.events(), []byte(tc.events), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := v.Power(); got != tc.want {
				t.Errorf("Power = %q, want %q", got, tc.want)
			}
		})
	}
}

func FuzzParseEvents(f *testing.F) {
	f.Add([]byte(someEvents + powerOff))
	f.Add([]byte(`{"event": "SHUTDOWN", "data": {"reason": 5}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		events := parseEvents(data)
		if got := asked(events); got != "" && !bytes.Contains(data, []byte("SHUTDOWN")) && !bytes.Contains(data, []byte(`\u`)) {
			t.Errorf("asked(%q) = %q", data, got)
		}
	})
}

type writerAt []byte

func (w writerAt) WriteAt(p []byte, at int64) (int, error) { return copy(w[at:], p), nil }

func TestErase(t *testing.T) {
	v := VM{Name: "x", Dir: t.TempDir(), Disks: []Disk{{Path: filepath.Join(t.TempDir(), "disk")}}}
	disk, err := gpt.Create(v.Disks[0].Path, 16<<20, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := v.Erase("STATE"); err != nil {
		t.Errorf("Erase on a disk without partitions: %v", err)
	}
	table, err := gpt.New(disk, uuid.Nil)
	if err != nil {
		t.Fatal(err)
	}
	var parts []gpt.Partition
	for _, label := range []string{"EFI", "STATE", "EPHEMERAL"} {
		p, err := table.Add(label, uuid.New(), uuid.Nil, 2<<20)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	if err := table.Write(); err != nil {
		t.Fatal(err)
	}
	for i, p := range parts {
		if _, err := disk.WriteAt(bytes.Repeat([]byte{byte('A' + i)}, int(p.Size)), p.Offset); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(v.Disks[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Erase("STATE", "NONE"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(v.Disks[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	clear(want[parts[1].Offset:][:parts[1].Size])
	if err := volume.MarkUnmade(writerAt(want), parts[1].Offset, parts[1].Size); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("want exactly what was in STATE gone, and the mark that it gets a file system")
	}
	if err := v.Replace(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(v.Disks[0].Path); !os.IsNotExist(err) {
		t.Errorf("disk after Replace: %v, want none", err)
	}
}

// TestVolume: the kernel's own tools know the volume by its label, and mtools
// reads what is in it.
func TestVolume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volume")
	if err := MakeVolume(path, "CIDATA", map[string][]byte{"user-data": []byte("secret\n"), "meta-data": nil}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("volume: %v, %v, want mode 0600", info.Mode(), err)
	}
	if _, err := exec.LookPath("mtype"); err != nil {
		if os.Getenv("REQUIRE_PRIV") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	got, err := exec.Command("mtype", "-i", path, "::user-data").CombinedOutput()
	if err != nil || string(got) != "secret\n" {
		t.Errorf("user-data = %q, %v", got, err)
	}
	got, err = exec.Command("mlabel", "-s", "-i", path, "::").CombinedOutput()
	if err != nil || !strings.Contains(string(got), "CIDATA") {
		t.Errorf("label = %q, %v", got, err)
	}
	if err := MakeVolume(path, "CIDATA", map[string][]byte{"/": nil}); err == nil {
		t.Error("a file without a name: want an error")
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestVirtualizes(t *testing.T) {
	for text, want := range map[string]bool{
		"flags\t\t: fpu vmx sse\n": true, "flags : svm": true, "flags : vmxnet\nbugs : svm\n": false, "": false,
	} {
		if got := virtualizes([]byte(text)); got != want {
			t.Errorf("virtualizes(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestCopyImage(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	f, err := os.Create(src)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, text := range map[int64]string{0: "start", 8 << 20: "middle"} {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(32 << 20); err != nil { // ends in a hole
		t.Fatal(err)
	}
	if err := CopyImage(dst, src); err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(src)
	got, err := os.ReadFile(dst)
	if err != nil || !bytes.Equal(want, got) {
		t.Errorf("copy of %d bytes has %d, %v", len(want), len(got), err)
	}
	if err := CopyImage(dst, filepath.Join(dir, "none")); err == nil {
		t.Error("copy of no file: want an error")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}
