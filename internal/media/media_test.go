package media

import (
	"bytes"
	"context"
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
	"github.com/klauspost/compress/zstd"

	"talos/internal/cmdline"
	"talos/internal/cpio"
	"talos/internal/hardening"
	"talos/internal/image"
	"talos/internal/secureboot"
	"talos/internal/uki"
	"talos/internal/verity"
)

const loaderDir = "/usr/lib/systemd/boot/efi"

// need skips without Debian's programs and files for boot media. REQUIRE_IMAGE=1
// (CI) makes a missing one a failure.
func need(t testing.TB, programs ...string) {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	missing := slices.DeleteFunc(programs, func(p string) bool { _, err := exec.LookPath(p); return err == nil })
	if _, err := os.Stat(filepath.Join(loaderDir, StubFile)); err != nil {
		missing = append(missing, "systemd-boot-efi")
	}
	if len(missing) == 0 {
		return
	}
	if os.Getenv("REQUIRE_IMAGE") == "1" {
		t.Fatalf("%v not installed, and REQUIRE_IMAGE=1", missing)
	}
	t.Skipf("%v not installed", missing)
}

// release has a kernel, a program init and a root of random bytes, the same at
// each call but for times and modes of the files.
func release(t *testing.T) *Release {
	t.Helper()
	dir := t.TempDir()
	for name, size := range map[string]int{"init": 50_000, "kernel/vmlinuz": 100_000, "root.squashfs": 300_000} {
		data := make([]byte, size)
		if name == "init" {
			copy(data, "\x7fELF")
		} else {
			rand.NewChaCha8([32]byte{byte(size)}).Read(data) // never fails
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "kernel/version"), []byte("6.12.0-talos\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := image.WriteRootImage(filepath.Join(dir, "root.squashfs"), filepath.Join(dir, "root.img"), filepath.Join(dir, "root.root")); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteInitramfs(filepath.Join(dir, "init"), filepath.Join(dir, "initramfs.zst")); err != nil {
		t.Fatal(err)
	}
	return &Release{
		Tag: "v1.2.3", Kernel: filepath.Join(dir, "kernel"), Initramfs: filepath.Join(dir, "initramfs.zst"),
		Root: filepath.Join(dir, "root.img"), Loader: loaderDir, Platform: "metal",
	}
}

var keyFiles = sync.OnceValues(func() ([]secureboot.File, error) { return secureboot.Generate("Test", nil, time.Now()) })

func keys(t *testing.T) *secureboot.Keys {
	t.Helper()
	files, err := keyFiles()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := secureboot.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCommandLine(t *testing.T) {
	r := release(t)
	r.Args = []string{"ip=dhcp", "quiet"}
	line, err := r.CommandLine()
	if err != nil {
		t.Fatal(err)
	}
	p, err := verity.FromCommandLine(cmdline.Parse(line))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := r.Param(); err != nil || p != want {
		t.Errorf("talos.root= is %v, want %v (%v)", p, want, err)
	}
	if !strings.HasPrefix(line, "talos.platform=metal console=tty0 ") || !strings.Contains(line, " ip=dhcp quiet talos.root=") {
		t.Errorf("CommandLine = %q", line)
	}
	if err := hardening.CheckCmdline(cmdline.Parse(line)); err != nil {
		t.Errorf("machined would not boot: %v", err)
	}
	for _, bad := range []string{"", "a b", "a\nb", "ä", "talos.root=x", "talos.platform=nocloud"} {
		r.Args = []string{bad}
		if line, err := r.CommandLine(); err == nil {
			t.Errorf("CommandLine with %q = %q, want an error", bad, line)
		}
	}
}

// unpack reads archives that follow each other as the kernel does.
func unpack(t *testing.T, data []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	for len(data) > 0 {
		if bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
			d, err := zstd.NewReader(nil)
			if err != nil {
				t.Fatal(err)
			}
			if data, err = d.DecodeAll(data, nil); err != nil {
				t.Fatal(err)
			}
		}
		r := bytes.NewReader(data)
		for a := cpio.NewReader(r); ; {
			h, err := a.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(a)
			if err != nil {
				t.Fatal(err)
			}
			if !h.Mode.IsDir() {
				files[h.Name] = string(b)
			}
		}
		data = data[len(data)-r.Len():]
	}
	return files
}

// TestFullInitramfs: the kernel finds init, the root, and all that an
// installation needs; what is for the disk has the small initramfs.
func TestFullInitramfs(t *testing.T) {
	need(t)
	for _, k := range []*secureboot.Keys{nil, keys(t)} {
		r := release(t)
		r.Keys = k
		full, err := r.FullInitramfs()
		if err != nil {
			t.Fatal(err)
		}
		files := unpack(t, full)
		if files[RootFile] != string(read(t, r.Root)) {
			t.Error("the root is not in it as it should be")
		}
		if !strings.HasPrefix(files[InitFile], "\x7fELF") {
			t.Error("init is not in it as it should be")
		}
		f, err := uki.Open(strings.NewReader(files[InstallUKI]), int64(len(files[InstallUKI])))
		if err != nil {
			t.Fatal(err)
		}
		initrd, err := f.Section(uki.Initrd)
		if err != nil {
			t.Fatal(err)
		}
		small, err := io.ReadAll(initrd)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range unpack(t, small) {
			names = append(names, name)
		}
		if diff := cmp.Diff([]string{InitFile}, names); diff != "" {
			t.Errorf("initramfs for the disk (-want +got):\n%s", diff)
		}
		for _, name := range []string{InstallUKI, InstallLoader} {
			err := secureboot.Verify(strings.NewReader(files[name]), int64(len(files[name])), keys(t).DB.Certificate)
			if (err == nil) != (k != nil) {
				t.Errorf("%s, keys %v: Verify = %v", name, k != nil, err)
			}
		}
		if _, ok := files[InstallSecureBoot+"/PK.auth"]; ok != (k != nil) {
			t.Errorf("keys %v: PK.auth is in it: %v", k != nil, ok)
		}
	}
}

func TestUKI(t *testing.T) {
	need(t)
	r := release(t)
	b, err := r.DiskUKI()
	if err != nil {
		t.Fatal(err)
	}
	f, err := uki.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	line, err := r.CommandLine()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		uki.OSRelease:     "NAME=\"Talos\"\nID=talos\nVERSION_ID=v1.2.3\nPRETTY_NAME=\"Talos (v1.2.3)\"",
		uki.KernelRelease: "6.12.0-talos",
		uki.CommandLine:   line,
	}
	for name, text := range want {
		if got, err := f.Text(name); err != nil || got != text {
			t.Errorf("%s = %q, %v, want %q", name, got, err, text)
		}
	}
}

// TestReproducible: the same inputs at other places, with other times, give the
// same bytes; a second run writes nothing.
func TestReproducible(t *testing.T) {
	need(t, "mkfs.vfat", "mcopy", "xorriso", "qemu-img")
	outputs := map[string]func(r *Release, name string) (bool, error){
		"efi":       func(r *Release, name string) (bool, error) { return r.WriteUKI(name) },
		"initramfs": func(r *Release, name string) (bool, error) { return r.WriteFullInitramfs(name, name+".cmdline") },
		"iso":       func(r *Release, name string) (bool, error) { return r.WriteISO(context.Background(), name) },
		"qcow2": func(r *Release, name string) (bool, error) {
			return r.WriteDisk(context.Background(), name, 0)
		},
	}
	for kind, write := range outputs {
		var made [][]byte
		for range 2 {
			r, name := release(t), filepath.Join(t.TempDir(), "out."+kind)
			for pass, want := range []bool{true, false} {
				if written, err := write(r, name); err != nil || written != want {
					t.Fatalf("%s, pass %d: written = %v, %v, want %v", kind, pass, written, err, want)
				}
			}
			made = append(made, read(t, name))
			left, err := os.ReadDir(filepath.Dir(name))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range left {
				if !strings.HasPrefix(e.Name(), "out.") {
					t.Errorf("%s leaves %s behind", kind, e.Name())
				}
			}
			time.Sleep(1100 * time.Millisecond) // a time that gets in shows in the seconds
		}
		if !bytes.Equal(made[0], made[1]) {
			t.Errorf("two of the kind %s differ", kind)
		}
	}
}

// TestISO: another reader finds the boot program where firmwares look for it.
func TestISO(t *testing.T) {
	need(t, "mkfs.vfat", "mcopy", "xorriso")
	r := release(t)
	r.Keys = keys(t)
	dir := t.TempDir()
	iso := filepath.Join(dir, "iso")
	if _, err := r.WriteISO(context.Background(), iso); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("xorriso", "-no_rc", "-indev", iso, "-pvd_info", "-report_el_torito", "plain", "-report_system_area", "plain").CombinedOutput()
	if err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	for _, want := range []string{"Volume Id    : TALOS", "App Id       : TALOS V1.2.3", "UEFI  y   none", "GPT type GUID      :   2  28732ac11ff8d211ba4b00a0c93ec93b"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("xorriso does not say %q:\n%s", want, out)
		}
	}
}

// TestDisk: the raw image and the one in QEMU's format are the same disk, of the
// size that was asked for.
func TestDisk(t *testing.T) {
	need(t, "qemu-img")
	r, dir := release(t), t.TempDir()
	raw, qcow2 := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	size := DiskSize(raw) + 1<<30
	for _, name := range []string{raw, qcow2} {
		if _, err := r.WriteDisk(context.Background(), name, size); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(raw); err != nil || info.Size() != size {
		t.Errorf("the raw image has %d bytes, want %d (%v)", info.Size(), size, err)
	}
	if out, err := exec.Command("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, qcow2).CombinedOutput(); err != nil {
		t.Errorf("qemu-img compare: %v\n%s", err, out)
	}
	if _, err := r.WriteDisk(context.Background(), filepath.Join(dir, "small.raw"), 500<<20); err == nil {
		t.Error("WriteDisk of 500 MiB = nil, want an error")
	}
}

// maxSystem is what kernel, initramfs and root may have together: what a machine
// loads over a network, and what an upgrade brings.
const maxSystem = 64_000_000

// TestSize looks at what TALOS_ROOTFS is part of. REQUIRE_IMAGE=1 (CI) makes a
// missing one a failure.
func TestSize(t *testing.T) {
	rootfs := os.Getenv("TALOS_ROOTFS")
	if rootfs == "" {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatal("TALOS_ROOTFS names no image, and REQUIRE_IMAGE=1")
		}
		t.Skip("TALOS_ROOTFS names no image")
	}
	var total int64
	for _, name := range []string{"rootfs.img", "initramfs.zst", "kernel/vmlinuz"} {
		info, err := os.Stat(filepath.Join(filepath.Dir(rootfs), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MB", name, float64(info.Size())/1e6)
		total += info.Size()
	}
	if total >= maxSystem {
		t.Errorf("kernel, initramfs and root have %d bytes, want less than %d", total, maxSystem)
	}
}
