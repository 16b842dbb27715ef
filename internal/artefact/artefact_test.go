package artefact

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/internal/cpio"
	"talos/internal/image"
	"talos/internal/media"
	"talos/internal/secureboot"
)

// fixture is a folder with a signed release of everything.
type fixture struct {
	dir   string
	trust Trust
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

// made is done once: RSA keys and ISOs take their time.
var made = sync.OnceValues(func() (*fixture, error) {
	dir, err := os.MkdirTemp("", "artefact")
	if err != nil {
		return nil, err
	}
	f := &fixture{dir: dir}
	remove = func() { os.RemoveAll(dir) }
	return f, f.make()
})

var remove = func() {}

func (f *fixture) make() error {
	files, err := secureboot.Generate("Test", nil, time.Now())
	if err != nil {
		return err
	}
	for _, k := range files {
		if err := os.WriteFile(f.path(k.Name), k.Data, 0o600); err != nil {
			return err
		}
	}
	keys, err := secureboot.Load(f.dir)
	if err != nil {
		return err
	}
	f.trust.Certificate = keys.DB.Certificate
	if f.trust.Checksums, err = secureboot.ReadChecksumsPublicKey(f.path(secureboot.ChecksumsFile)); err != nil {
		return err
	}
	if err := os.Mkdir(f.path("kernel"), 0o755); err != nil {
		return err
	}
	for name, size := range map[string]int{"kernel/vmlinuz": 100_000, "rootfs.squashfs": 300_000, "initprogram": 1000} {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size)}).Read(data)
		copy(data, squashMagic)
		if err := os.WriteFile(f.path(name), data, 0o600); err != nil {
			return err
		}
	}
	if err := os.WriteFile(f.path("kernel/version"), []byte("6.12.0\n"), 0o600); err != nil {
		return err
	}
	if _, err := image.WriteRootImage(f.path("rootfs.squashfs"), f.path("rootfs.img"), f.path("rootfs.root")); err != nil {
		return err
	}
	if _, err := media.WriteInitramfs(f.path("initprogram"), f.path("initramfs.zst")); err != nil {
		return err
	}
	r := &media.Release{
		Tag: "v1.2.3", Kernel: f.path("kernel"), Initramfs: f.path("initramfs.zst"), Root: f.path("rootfs.img"),
		Loader: "/usr/lib/systemd/boot/efi", Platform: "metal", Keys: keys,
	}
	if _, err := r.WriteUKI(f.path("talos.efi")); err != nil {
		return err
	}
	if _, err := r.WriteFullInitramfs(f.path("full.zst"), f.path("cmdline")); err != nil {
		return err
	}
	if _, err := r.WriteISO(context.Background(), f.path("talos.iso")); err != nil {
		return err
	}
	_, err = r.WriteDisk(context.Background(), f.path("talos.raw"), 0)
	return err
}

// release needs Debian's programs and files for boot media. REQUIRE_IMAGE=1 (CI)
// makes a missing one a failure.
func release(t *testing.T) *fixture {
	t.Helper()
	for _, name := range []string{"mcopy", "xorriso", "/usr/sbin/mkfs.vfat"} {
		if _, err := exec.LookPath(name); err != nil && os.Getenv("REQUIRE_IMAGE") != "1" {
			t.Skip(err)
		}
	}
	f, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMain(m *testing.M) {
	code := m.Run()
	remove()
	os.Exit(code)
}

func check(t *testing.T, name string, trust Trust) []string {
	t.Helper()
	results, err := Check(name, trust)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range results {
		lines = append(lines, fmt.Sprintf("%s %s: %s", r.Part, r.Check, r.Outcome))
	}
	return lines
}

// TestAllGood: every check of every kind of file, with a certificate and without.
func TestAllGood(t *testing.T) {
	f := release(t)
	disk := func(part string) []string {
		return []string{part + " secure boot: ok", part + " version: ok", part + " root: skipped"}
	}
	const boot, install = "EFI:/EFI/BOOT/BOOTX64.EFI", "EFI:/EFI/BOOT/BOOTX64.EFI:/install/"
	tests := map[string][]string{
		"talos.efi": disk(""),
		"full.zst":  slices.Concat(disk("/install/talos.efi"), []string{"/install/systemd-bootx64.efi secure boot: ok", "/rootfs.img root: ok"}),
		"talos.iso": slices.Concat([]string{boot + " secure boot: ok", boot + " version: ok"}, disk(install+"talos.efi"),
			[]string{install + "systemd-bootx64.efi secure boot: ok", boot + ":/rootfs.img root: ok"}),
		"talos.raw": {
			"EFI:/EFI/BOOT/BOOTX64.EFI secure boot: ok", "EFI:/EFI/systemd/systemd-bootx64.efi secure boot: ok",
			"EFI:/EFI/talos/A.efi secure boot: ok", "EFI:/EFI/talos/A.efi version: ok", "ROOT-A root: ok",
		},
		"rootfs.img": {" root: ok"},
	}
	for name, want := range tests {
		if diff := cmp.Diff(want, check(t, f.path(name), f.trust)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for i := range want {
			want[i] = strings.Replace(want[i], "secure boot: ok", "secure boot: skipped", 1)
		}
		if diff := cmp.Diff(want, check(t, f.path(name), Trust{})); diff != "" {
			t.Errorf("%s without a certificate (-want +got):\n%s", name, diff)
		}
	}
}

// TestChanged: a changed byte is noticed by the check that it is for, wherever
// the file is deep inside another.
func TestChanged(t *testing.T) {
	f := release(t)
	read := func(name string) []byte {
		b, err := os.ReadFile(f.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	root, kernel := read("rootfs.img"), read("kernel/vmlinuz")
	blockIn := func(b []byte, at int) []byte { return b[at : at+512] }
	tests := []struct {
		name   string
		needle []byte // its first byte is changed, where it is found last
		want   string
	}{
		{"rootfs.img", blockIn(root, 100_000), " root: failed"},
		{"rootfs.img", blockIn(root, len(root)-4096), " root: failed"}, // of the hash tree
		{"talos.efi", blockIn(kernel, 50_000), " secure boot: failed"},
		{"talos.efi", []byte("talos.platform=metal"), " secure boot: failed"},
		{"talos.efi", []byte("VERSION_ID="), " version: failed"},
		{"talos.efi", []byte("talos.root="), " root: failed"},
		{"full.zst", blockIn(root, 100_000), "/rootfs.img root: failed"},
		{"full.zst", blockIn(kernel, 50_000), "/install/talos.efi secure boot: failed"},
		{"talos.iso", blockIn(root, 100_000), "EFI:/EFI/BOOT/BOOTX64.EFI:/rootfs.img root: failed"},
		{"talos.iso", blockIn(root, 100_000), "EFI:/EFI/BOOT/BOOTX64.EFI secure boot: failed"},
		{"talos.iso", []byte(gptMagic), " partitions: failed"},
	}
	for _, tt := range tests {
		data := read(tt.name)
		at := bytes.LastIndex(data, tt.needle)
		if string(tt.needle) == gptMagic {
			at = bytes.Index(data, tt.needle)
		}
		if at < 0 {
			t.Fatalf("%s does not hold %.20q", tt.name, tt.needle)
		}
		data[at] ^= 0x20
		changed := filepath.Join(t.TempDir(), tt.name)
		if err := os.WriteFile(changed, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(changed), "rootfs.root"), read("rootfs.root"), 0o600); err != nil {
			t.Fatal(err)
		}
		got := check(t, changed, f.trust)
		if !slices.Contains(got, tt.want) {
			t.Errorf("%s with a byte of %.20q changed: %q, want %q among them", tt.name, tt.needle, got, tt.want)
		}
	}
}

// TestChangedDisk: the same on a disk, where the root is in a partition of its
// own; and a partition that no kernel asks for is noticed.
func TestChangedDisk(t *testing.T) {
	f := release(t)
	disk, err := os.OpenFile(f.path("talos.raw"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := readGPT(io.NewSectionReader(disk, 0, info.Size()))
	if err != nil {
		t.Fatal(err)
	}
	// with calls check while bytes at an offset of a partition are others.
	with := func(label string, at int64, data []byte, want string) {
		t.Helper()
		i := slices.IndexFunc(parts, func(p partition) bool { return p.label == label })
		if i < 0 {
			t.Fatalf("there is no partition %s", label)
		}
		_, start, _ := parts[i].data.Outer()
		before := make([]byte, len(data))
		if _, err := disk.ReadAt(before, start+at); err != nil {
			t.Fatal(err)
		}
		if _, err := disk.WriteAt(data, start+at); err != nil {
			t.Fatal(err)
		}
		if got := check(t, f.path("talos.raw"), f.trust); !slices.Contains(got, want) {
			t.Errorf("%s changed at %d: %q, want %q among them", label, at, got, want)
		}
		if _, err := disk.WriteAt(before, start+at); err != nil {
			t.Fatal(err)
		}
	}
	with("ROOT-A", 100_000, []byte("changed"), "ROOT-A root: failed")
	with("ROOT-B", 0, []byte(squashMagic), "ROOT-B root: failed")
	with("EFI", 0, make([]byte, 512), "EFI file system: failed")
	if got := check(t, f.path("talos.raw"), f.trust); strings.Contains(strings.Join(got, " "), "failed") {
		t.Errorf("with everything as it was: %q", got)
	}
}

// TestAnotherKey: what is signed, but not by this key, fails.
func TestAnotherKey(t *testing.T) {
	f := release(t)
	other, err := secureboot.ReadCertificate(f.path("KEK.crt"))
	if err != nil {
		t.Fatal(err)
	}
	got := check(t, f.path("talos.efi"), Trust{Certificate: other})
	if want := " secure boot: failed"; got[0] != want {
		t.Errorf("Check = %q, want %q first", got, want)
	}
}

func TestCheckSums(t *testing.T) {
	f := release(t)
	list, err := Sums(f.dir, "talos.iso", "talos.efi")
	if err != nil {
		t.Fatal(err)
	}
	key, err := secureboot.ReadChecksumsKey(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	name := f.path(SumsName)
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(name, list)
	if out, err := exec.Command("sh", "-c", "cd "+f.dir+" && sha256sum -c --strict "+SumsName).CombinedOutput(); err != nil {
		t.Errorf("sha256sum -c: %v\n%s", err, out)
	}
	files := []string{"talos.efi checksum: ok", "talos.iso checksum: ok"}
	expect := func(what string, trust Trust, want string) {
		t.Helper()
		for _, n := range []string{name, name + SignatureSuffix} { // either may be named
			if _, err := os.Stat(n); err != nil {
				continue
			}
			if diff := cmp.Diff(append([]string{" list signature: " + want}, files...), check(t, n, trust)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
	}
	expect("no key", Trust{}, "skipped")
	expect("no signature", f.trust, "failed")
	write(name+SignatureSuffix, ed25519.Sign(key, list))
	expect("signed", f.trust, "ok")
	write(name+SignatureSuffix, []byte("short"))
	expect("no signature at all", f.trust, "failed")
	write(name+SignatureSuffix, ed25519.Sign(key, append(list, '\n')))
	expect("of another list", f.trust, "failed")

	write(f.path("other"), []byte("x"))
	if list, err = Sums(f.dir, "other"); err != nil {
		t.Fatal(err)
	}
	write(name, list)
	write(f.path("other"), []byte("y"))
	if got := check(t, name, Trust{}); !slices.Contains(got, "other checksum: failed") {
		t.Errorf("changed file: %q", got)
	}
	if err := os.Remove(f.path("other")); err != nil {
		t.Fatal(err)
	}
	if got := check(t, name, Trust{}); !slices.Contains(got, "other checksum: failed") {
		t.Errorf("missing file: %q", got)
	}
}

// TestUnknown: what is no artefact is an error and no result.
func TestUnknown(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"empty": "", "text": "hello", "qcow2": "QFI\xfb", "SHA256SUMS": "x", "dir/SHA256SUMS": ""} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Check(path, Trust{}); err == nil {
			t.Errorf("Check(%s) = %v, want an error", name, got)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		if got, err := Check(path, Trust{}); err == nil {
			t.Errorf("Check(%s) = %v, want an error", path, got)
		}
	}
}

// TestInitramfsTwice: a file that is there twice hides one of the two.
func TestInitramfsTwice(t *testing.T) {
	var b bytes.Buffer
	for range 2 {
		w := cpio.NewWriter(&b)
		if err := w.Data("init", 0o755, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Check(name, Trust{}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("Check = %v, %v, want it refused", got, err)
	}
}

// FuzzCheck: whatever the bytes, looking at them ends, and without a panic.
func FuzzCheck(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add(append(make([]byte, 512), "EFI PART"...))
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	if err := w.Data("init", 0o755, []byte("x")); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &checker{file: "fuzz"}
		if err := c.walk(section(data)); err == nil && len(c.results) == 0 {
			t.Error("neither a result nor an error")
		}
	})
}

// FuzzSums: what is read can be written back.
func FuzzSums(f *testing.F) {
	f.Add([]byte(strings.Repeat("0", 64) + "  a\n"))
	f.Add([]byte(strings.Repeat("f", 64) + "  ../a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sums, err := ParseSums(data)
		if err != nil {
			return
		}
		var b bytes.Buffer
		for _, s := range sums {
			fmt.Fprintf(&b, "%x  %s\n", s.SHA256, s.Name)
		}
		again, err := ParseSums(b.Bytes())
		if err != nil || !slices.Equal(sums, again) {
			t.Errorf("ParseSums of %q = %v, %v, want %v", b.Bytes(), again, err, sums)
		}
	})
}
