package integrity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/layout"
	"talos/internal/linux/dm"
	"talos/internal/secureboot"
	"talos/internal/slot"
	"talos/internal/uki"
	"talos/internal/verity"
)

const (
	bootDir  = "/usr/lib/systemd/boot/efi/"
	tag      = "v1.2.3"
	release  = "6.12.48"
	build    = "#1 SMP PREEMPT_DYNAMIC v1"
	argument = "talos.config=https://user:secret@example.org/"
	blocks   = 300
)

// made is an installed disk, signed for Secure Boot, its root, and two folders of
// keys, of which the first has signed. It is made once: RSA keys take their time.
var made = sync.OnceValues(func() (*installed, error) {
	dir, err := os.MkdirTemp("", "integrity")
	if err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	i := &installed{dir: dir}
	return i, i.make()
})

var remove = func() {}

func TestMain(m *testing.M) {
	code := m.Run()
	remove()
	os.Exit(code)
}

type installed struct {
	dir   string
	root  []byte // data and tree
	param verity.Param
	line  string    // of the kernel image
	lists [2][]byte // db of either folder of keys
}

func (i *installed) make() error {
	data := make([]byte, blocks*verity.BlockSize)
	rand.NewChaCha8([32]byte{}).Read(data) // never fails
	var tree bytes.Buffer
	var err error
	if i.param, err = verity.Build(bytes.NewReader(data), int64(len(data)), &tree); err != nil {
		return err
	}
	i.root, i.line = append(data, tree.Bytes()...), argument+" panic=10 talos.root="+i.param.String()
	var keys *secureboot.Keys
	for n := range i.lists {
		files, err := secureboot.Generate(fmt.Sprintf("Folder %d", n), nil, time.Now())
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := write(0o600, f.Data, i.dir, "keys", f.Name); err != nil {
				return err
			}
			if f.Name == "db.esl" {
				i.lists[n] = f.Data
			}
		}
		if n == 0 {
			if keys, err = secureboot.Load(filepath.Join(i.dir, "keys")); err != nil {
				return err
			}
		}
	}
	kernel, err := i.kernel()
	if err != nil {
		return err
	}
	loader, err := os.ReadFile(bootDir + "systemd-bootx64.efi")
	if err != nil {
		return err
	}
	for name, program := range map[string][]byte{install.KernelFile: kernel, install.LoaderFile: loader} {
		signed, err := secureboot.Sign(program, keys.DB)
		if err := errors.Join(err, write(0o600, signed, i.dir, "source", name)); err != nil {
			return err
		}
	}
	if err := write(0o600, i.root, i.dir, "source", install.RootFile); err != nil {
		return err
	}
	source, err := install.OpenSource(filepath.Join(i.dir, "source"))
	if err != nil {
		return err
	}
	defer source.Close()
	d, err := gpt.Create(i.disk(), install.ImageSize(512), 512)
	if err != nil {
		return err
	}
	defer d.Close()
	return install.Write(context.Background(), d, source, install.Options{})
}

func (i *installed) disk() string { return filepath.Join(i.dir, "disk") }

func (i *installed) kernel() ([]byte, error) {
	stub, err := os.ReadFile(bootDir + "linuxx64.efi.stub")
	if err != nil {
		return nil, err
	}
	linux := make([]byte, 100_000)
	rand.NewChaCha8([32]byte{1}).Read(linux) // never fails
	copy(linux[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(linux[0x20e:], 0x1000)
	copy(linux[0x1200:], release+" (who@where) "+build+"\x00")
	return uki.Build(stub,
		uki.Section{Name: uki.OSRelease, Data: []byte("NAME=\"Talos\"\nVERSION_ID=" + tag + "\n")},
		uki.Section{Name: uki.CommandLine, Data: []byte(i.line)},
		uki.Section{Name: uki.KernelRelease, Data: []byte(release)},
		uki.Section{Name: uki.Kernel, Data: linux},
		uki.Section{Name: uki.Initrd, Data: []byte("an initramfs")},
	)
}

func write(mode os.FileMode, data []byte, elem ...string) error {
	name := filepath.Join(elem...)
	return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, data, mode))
}

// mapper is a device mapper with one device.
type mapper struct{ table, status dm.Target }

func (m *mapper) Table(name string) ([]dm.Target, error) {
	if name != "root" {
		return nil, os.ErrNotExist
	}
	return []dm.Target{m.table}, nil
}

func (m *mapper) Status(string) ([]dm.Target, error) { return []dm.Target{m.status}, nil }

// machine is one that runs from the installed disk, with Secure Boot or without.
type machine struct {
	*installed
	*Node
	t      *testing.T
	mapper *mapper
}

func newMachine(t *testing.T, secure bool) *machine {
	t.Helper()
	for _, name := range []string{"linuxx64.efi.stub", "systemd-bootx64.efi"} {
		if _, err := os.Stat(bootDir + name); err != nil && os.Getenv("REQUIRE_IMAGE") != "1" {
			t.Skip(err)
		}
	}
	i, err := made()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{installed: i, t: t, mapper: &mapper{
		table: dm.Target{Length: blocks * 8, Type: "verity",
			Params: fmt.Sprintf("1 254:2 254:2 4096 4096 %d %[1]d sha256 %s -", blocks, i.param.Root)},
		status: dm.Target{Length: blocks * 8, Type: "verity", Params: "V"},
	}}
	m.Node = &Node{Version: tag, Dir: t.TempDir(), Mapper: m.mapper}
	m.put("proc/cmdline", i.line+"\n")
	m.put("proc/self/mountinfo", "22 1 253:0 / / ro,nodev - squashfs /dev/dm-0 ro\n23 22 0:20 / /proc rw - proc proc rw\n")
	m.put("proc/sys/kernel/osrelease", release+"\n")
	m.put("proc/sys/kernel/version", build+"\n")
	m.put("etc/os-release", "ID=talos\nVERSION_ID="+tag+"\n")
	m.put("sys/dev/block/253:0/dm/name", "root\n")
	m.put("sys/devices/vda/vda2/partition", "2\n")
	m.link("sys/dev/block/254:2", "../../devices/vda/vda2")
	m.put("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
	m.put("dev/vda2", string(i.root))
	m.link("dev/vda", i.disk())
	if secure {
		m.put("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
		m.put("sys/firmware/efi/efivars/"+secureboot.StateVariable, "\x06\x00\x00\x00\x01")
		m.put("sys/firmware/efi/efivars/"+secureboot.DatabaseVariable, "\x27\x00\x00\x00"+string(i.lists[0]))
	}
	return m
}

func (m *machine) put(name, content string) {
	m.t.Helper()
	if err := write(0o644, []byte(content), m.Dir, name); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) link(name, target string) {
	m.t.Helper()
	file := filepath.Join(m.Dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.Symlink(target, file)); err != nil {
		m.t.Fatal(err)
	}
}

// flip changes a byte of the disk: the one at an offset from where the bytes are
// found, until the test ends.
func (m *machine) flip(needle string, offset int) {
	m.t.Helper()
	d, err := gpt.Open(m.disk(), false)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { d.Close() })
	esp, err := install.Place(d, install.EFILabel)
	if err != nil {
		m.t.Fatal(err)
	}
	all := make([]byte, 16<<20) // all files are at its start
	if _, err := d.ReadAt(all, esp.Offset); err != nil {
		m.t.Fatal(err)
	}
	at := bytes.Index(all, []byte(needle))
	if at < 0 {
		m.t.Fatalf("the EFI system partition does not hold %q", needle)
	}
	set := func(b byte) {
		if _, err := d.WriteAt([]byte{b}, esp.Offset+int64(at+offset)); err != nil {
			m.t.Fatal(err)
		}
	}
	set(all[at+offset] ^ 1)
	m.t.Cleanup(func() { set(all[at+offset]) })
}

// verify returns what each check has come to, and the details.
func verify(t *testing.T, n *Node) (outcomes, details map[string]string) {
	t.Helper()
	outcomes, details = map[string]string{}, map[string]string{}
	err := n.Verify(t.Context(), func(e Event) error {
		if e.Outcome != "" {
			if _, twice := outcomes[e.Check]; twice {
				t.Errorf("%s has two outcomes", e.Check)
			}
			outcomes[e.Check], details[e.Check] = string(e.Outcome), e.Detail
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return outcomes, details
}

// expect says what differs from a machine on which all is well.
func expect(t *testing.T, n *Node, secure bool, others map[string]Outcome) map[string]string {
	t.Helper()
	want := map[string]string{}
	for _, c := range (&Node{}).checks() {
		want[c.name] = string(OK)
	}
	if !secure {
		for _, name := range []string{"Secure Boot", "lockdown", "kernel image signature", "boot loader signature"} {
			want[name] = string(NotApplicable)
		}
	}
	for name, outcome := range others {
		if want[name] == "" {
			t.Fatalf("there is no check %q", name)
		}
		want[name] = string(outcome)
	}
	got, details := verify(t, n)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, strings.Join(lines(details), "\n"))
	}
	return details
}

func lines(m map[string]string) (out []string) {
	for k, v := range m {
		out = append(out, k+": "+v)
	}
	return out
}

// TestWell: a machine on which all is well.
func TestWell(t *testing.T) {
	for _, secure := range []bool{false, true} {
		details := expect(t, newMachine(t, secure).Node, secure, nil)
		for name, want := range map[string]string{"root data": "dev/vda2", "kernel image": "SHA-256 ", "boot entry": "slot A, talos-A.conf"} {
			if !strings.Contains(details[name], want) {
				t.Errorf("%s says %q, want %q in it", name, details[name], want)
			}
		}
		if want := map[bool]string{false: "Folder 0 db", true: "admitted by Folder 0 db"}[secure]; !strings.Contains(details["kernel image signature"], want) {
			t.Errorf("the signature's detail is %q, want %q in it", details["kernel image signature"], want)
		}
	}
}

// TestChanged: what differs is found, by the check that it is for and no other.
func TestChanged(t *testing.T) {
	before := map[string]Outcome{ // what says nothing once the root's device is not known
		"root data": Failed, "boot entry": Failed, "kernel image": Failed, "kernel arguments": Failed,
		"kernel image signature": Failed, "boot loader signature": Failed,
	}
	with := func(others map[string]Outcome, more ...string) map[string]Outcome {
		out := map[string]Outcome{}
		for name, outcome := range others {
			out[name] = outcome
		}
		for _, name := range more {
			out[name] = Failed
		}
		return out
	}
	failed := func(names ...string) map[string]Outcome { return with(nil, names...) }
	tests := []struct {
		name   string
		secure bool
		change func(m *machine)
		want   map[string]Outcome
		detail string // of the first, if any
	}{
		{"a byte of the root", false, func(m *machine) {
			b := bytes.Clone(m.root)
			b[17*verity.BlockSize+5] ^= 1
			m.put("dev/vda2", string(b))
		}, failed("root data"), "block 17, at byte 69632,"},
		{"a byte of the hash tree", false, func(m *machine) {
			b := bytes.Clone(m.root)
			b[len(b)-verity.BlockSize] ^= 1
			m.put("dev/vda2", string(b))
		}, failed("root data"), "hash tree is damaged"},
		{"a partition that is too small", false, func(m *machine) {
			m.put("dev/vda2", string(m.root[:len(m.root)-1]))
		}, failed("root data"), ""},
		{"the kernel was told of no root", false, func(m *machine) {
			m.put("proc/cmdline", "panic=10\n")
		}, with(before, "root hash", "root device"), ""},
		{"a table of another hash", false, func(m *machine) {
			m.mapper.table.Params = strings.Replace(m.mapper.table.Params, m.param.Root.String(), strings.Repeat("0", 64), 1)
		}, with(before, "root device"), ""},
		{"a table that ignores what it finds", false, func(m *machine) {
			m.mapper.table.Params += " 1 ignore_corruption"
		}, with(before, "root device"), ""},
		{"a bad block was met", false, func(m *machine) { m.mapper.status.Params = "C" }, with(before, "root device"), ""},
		{"a root that nothing checks", false, func(m *machine) {
			m.put("proc/self/mountinfo", "22 1 254:2 / / ro - squashfs /dev/vda2 ro\n")
		}, with(before, "root device"), ""},
		{"something else over the root", false, func(m *machine) {
			m.put("proc/self/mountinfo", "22 1 253:0 / / ro - squashfs /dev/dm-0 ro\n30 22 0:9 / / rw - overlay none rw\n")
		}, with(before, "root device"), ""},
		{"a root of another version", false, func(m *machine) { m.put("etc/os-release", "VERSION_ID=v1.2.2\n") }, failed("version"), ""},
		{"modules", false, func(m *machine) { m.put("proc/modules", "") }, failed("kernel modules"), ""},
		{"no lockdown, though asked for", false, func(m *machine) {
			m.put("proc/cmdline", m.line+" lockdown=integrity\n")
		}, failed("lockdown", "kernel arguments"), ""},
		{"no lockdown under Secure Boot", true, func(m *machine) {
			m.put("sys/kernel/security/lockdown", "[none] integrity confidentiality\n")
		}, failed("lockdown"), ""},
		{"another argument", false, func(m *machine) {
			m.put("proc/cmdline", strings.Replace(m.line, argument, "init_on_alloc=0", 1))
		}, failed("kernel arguments"), "told init_on_alloc, and not talos.config"},
		{"an image that starts another root", false, func(m *machine) {
			m.flip("talos.root=", len("talos.root=")+3)
		}, map[string]Outcome{"kernel image": Failed, "kernel arguments": Failed, "kernel image signature": Failed}, "it starts the root"},
		{"an image of another version", false, func(m *machine) {
			m.flip("VERSION_ID=v1.2.3", len("VERSION_ID=v1.2."))
		}, failed("kernel image", "kernel image signature"), ""},
		{"another kernel runs", false, func(m *machine) {
			m.put("proc/sys/kernel/version", "#2 SMP PREEMPT_DYNAMIC v1\n")
		}, failed("kernel image"), ""},
		{"a kernel that was built anew", true, func(m *machine) {
			m.flip(" (who@where) #1", len(" (who@where) #"))
		}, failed("kernel image", "kernel image signature"), ""},
		{"a byte of the kernel", true, func(m *machine) { m.flip(" (who@where)", 2) }, failed("kernel image signature"), "the signature is of another program"},
		{"an entry of another version", false, func(m *machine) { m.flip("version v1.2.3", len("version v1.2.")) }, failed("boot entry"), ""},
		{"an entry that can't be read", false, func(m *machine) { m.flip("sort-key talos-", 9) }, failed("boot entry"), "no entry for slot A"},
		{"signed by another key", true, func(m *machine) {
			m.put("sys/firmware/efi/efivars/"+secureboot.DatabaseVariable, "\x27\x00\x00\x00"+string(m.lists[1]))
		}, failed("kernel image signature", "boot loader signature"), "Folder 0 db, which the firmware does not trust"},
		{"a list of keys that is cut short", true, func(m *machine) {
			m.put("sys/firmware/efi/efivars/"+secureboot.DatabaseVariable, "\x27\x00\x00\x00"+string(m.lists[1][:100]))
		}, failed("kernel image signature", "boot loader signature"), ""},
		{"a root on another partition than its slot", false, func(m *machine) {
			m.put("sys/devices/vda/vda2/partition", "3\n")
		}, failed("boot entry", "kernel image", "kernel arguments", "kernel image signature", "boot loader signature"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, tt.secure)
			tt.change(m)
			details := expect(t, m.Node, tt.secure, tt.want)
			if all := strings.Join(lines(details), "\n"); !strings.Contains(all, tt.detail) {
				t.Errorf("nothing says %q:\n%s", tt.detail, all)
			} else if strings.Contains(all, "secret") {
				t.Errorf("a detail has the value of an argument:\n%s", all)
			}
		})
	}
}

// TestMedium: started from an ISO or over the network the root is checked, and
// what started it is not said to be good.
func TestMedium(t *testing.T) {
	m := newMachine(t, false)
	m.mapper.table.Params = strings.ReplaceAll(m.mapper.table.Params, "254:2", "7:0")
	m.put("sys/devices/virtual/loop0/loop/backing_file", "/rootfs.img\n")
	m.link("sys/dev/block/7:0", "../../devices/virtual/loop0")
	m.put("dev/loop0", string(m.root))
	none := map[string]Outcome{"boot entry": NotApplicable, "kernel image": NotApplicable, "kernel arguments": NotApplicable}
	expect(t, m.Node, false, none)
	m.root = bytes.Clone(m.root)
	m.put("dev/loop0", string(append(m.root[:10:10], append([]byte{m.root[10] ^ 1}, m.root[11:]...)...)))
	none["root data"] = Failed
	expect(t, m.Node, false, none)
}

// TestContainer: what is the host's is not said to be good; the image is that
// whose digest was noted, or the check fails.
func TestContainer(t *testing.T) {
	image := bytes.Repeat([]byte("image"), 100_000)
	n := &Node{Container: true, Version: tag, Dir: t.TempDir()}
	put := func(name, content string) {
		t.Helper()
		if err := write(0o644, []byte(content), n.Dir, name); err != nil {
			t.Fatal(err)
		}
	}
	put("proc/self/mountinfo", "22 1 7:5 / / ro,nodev - squashfs /dev/loop5 ro\n")
	put("sys/block/loop5/loop/backing_file", "/image\n")
	if err := errors.Join(os.MkdirAll(filepath.Join(n.Dir, "sys/dev/block"), 0o755), os.Symlink("../../block/loop5", filepath.Join(n.Dir, "sys/dev/block/7:5"))); err != nil {
		t.Fatal(err)
	}
	put("dev/loop5", string(image))
	put("etc/os-release", "VERSION_ID="+tag+"\n")
	want := map[string]string{}
	for _, c := range containerChecks() {
		want[c.name] = string(NotApplicable)
	}
	want["version"] = string(OK)
	for _, tt := range []struct {
		noted string
		want  Outcome
	}{{"", NotApplicable}, {fmt.Sprintf("%x\n", sha256.Sum256(image)), OK}, {strings.Repeat("0", 64), Failed}} {
		if tt.noted != "" {
			put(layout.RootDigestFile, tt.noted)
		}
		want["root data"] = string(tt.want)
		got, details := verify(t, n)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("with the digest %q noted (-want +got):\n%s", tt.noted, diff)
		}
		for name, outcome := range got {
			if outcome != string(OK) && details[name] == "" {
				t.Errorf("%s is %s, and no reason is given", name, outcome)
			}
		}
	}
	if a, b := containerChecks(), (&Node{}).checks(); len(a) != len(b) {
		t.Errorf("%d checks in a container, %d on a machine: those that do not apply are told too", len(a), len(b))
	}
}

// TestEnds: a caller that leaves, and one that does not listen, end the checks.
func TestEnds(t *testing.T) {
	m := newMachine(t, false)
	ctx, cancel := context.WithCancel(t.Context())
	err := m.Verify(ctx, func(e Event) error {
		if e.Check == "root data" {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Verify = %v, want %v", err, context.Canceled)
	}
	deaf := errors.New("deaf")
	if err := m.Verify(t.Context(), func(e Event) error { return deaf }); !errors.Is(err, deaf) {
		t.Errorf("Verify = %v, want %v", err, deaf)
	}
	r := &reader{v: &verification{tell: func(Event) error { return deaf }}, ctx: t.Context()}
	if r.f, err = os.Open(m.path("dev/vda2")); err != nil {
		t.Fatal(err)
	}
	defer r.f.Close()
	var told *tellError
	if _, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, 1<<20)); !errors.As(err, &told) {
		t.Errorf("reading for who does not listen = %v, want that to end it", err)
	}
}

// TestTwice: of two files of one name, firmware could start the other.
func TestTwice(t *testing.T) {
	m := newMachine(t, false)
	v := &verification{Node: m.Node, root: &m.param, device: "254:2", tell: func(Event) error { return nil }}
	b, err := v.findBoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.disk.Close()
	f, err := b.find(strings.ToUpper(slot.A.KernelPath()))
	if err != nil {
		t.Fatal(err)
	}
	b.files = append(b.files, *f)
	if _, err := b.find(slot.A.KernelPath()); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("find = %v, want it refused", err)
	}
}
