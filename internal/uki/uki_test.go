package uki

import (
	"bytes"
	"debug/pe"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const stubFile = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// stub is Debian's, from systemd-boot-efi. REQUIRE_IMAGE=1 (CI) makes a missing
// one a failure.
func stub(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(stubFile)
	if err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return b
}

// sample has sections shorter and longer than a page, and an empty one.
func sample() []Section {
	return []Section{
		{OSRelease, []byte("ID=talos\n")},
		{CommandLine, []byte("console=ttyS0 talos.root=x")},
		{KernelRelease, nil},
		{Kernel, bytes.Repeat([]byte("kernel"), 5000)},
		{Initrd, bytes.Repeat([]byte{1}, 4096)},
	}
}

func build(t testing.TB, sections ...Section) []byte {
	t.Helper()
	b, err := Build(stub(t), sections...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBuildAndOpen(t *testing.T) {
	out := build(t, sample()...)
	f, err := Open(bytes.NewReader(out), int64(len(out)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sample() {
		r, err := f.Section(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, r.Size())
		if _, err := r.ReadAt(got, 0); len(got) > 0 && err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, s.Data) {
			t.Errorf("section %s has %d bytes that differ from the %d put in", s.Name, len(got), len(s.Data))
		}
	}
	if text, err := f.Text(OSRelease); err != nil || text != "ID=talos" {
		t.Errorf("Text(.osrel) = %q, %v", text, err)
	}
	if _, err := f.Section(".dtb"); err == nil {
		t.Error("Section(.dtb) = nil error, and there is none")
	}
	if !bytes.Equal(out, build(t, sample()...)) {
		t.Error("two images of the same parts differ")
	}
}

// TestLayout: a reader that is not ours finds an image as the firmware wants
// it: sections in pages of their own, none in another's place, all inside the
// size that the headers state.
func TestLayout(t *testing.T) {
	in := stub(t)
	out := build(t, sample()...)
	f, err := pe.NewFile(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		t.Fatalf("the optional header is a %T", f.OptionalHeader)
	}
	before, err := pe.NewFile(bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(f.Sections), len(before.Sections)+len(sample()); got != want {
		t.Fatalf("%d sections, want %d", got, want)
	}
	var memory, file uint32
	for i, s := range f.Sections {
		if s.VirtualAddress < memory || s.Offset < file || s.Offset%h.FileAlignment != 0 {
			t.Errorf("%s is at %#x in memory and %#x in the file, want it behind %#x and %#x, aligned in the file",
				s.Name, s.VirtualAddress, s.Offset, memory, file)
		}
		if i >= len(before.Sections) && s.VirtualAddress%pageSize != 0 {
			t.Errorf("%s is at %#x in memory, want the start of a page", s.Name, s.VirtualAddress)
		}
		memory, file = s.VirtualAddress+s.VirtualSize, s.Offset+s.Size
	}
	if h.SizeOfImage < memory || h.SizeOfImage%h.SectionAlignment != 0 {
		t.Errorf("the image's size in memory is %#x, want it aligned and %#x at least", h.SizeOfImage, memory)
	}
	if int(file) != len(out) {
		t.Errorf("the file has %d bytes, want %d: nothing behind the last section", len(out), file)
	}
	sum := h.CheckSum
	at := bytes.Index(out, []byte("PE\x00\x00")) + fileHeaderLen + checksumAt
	clear(out[at : at+4])
	if want := Checksum(out); sum != want {
		t.Errorf("checksum = %#x, want %#x", sum, want)
	}
}

// TestReference: the checksum is that of the stub as its maker computed it, and
// sections are those that objcopy would make.
func TestReference(t *testing.T) {
	in := bytes.Clone(stub(t))
	before, err := pe.NewFile(bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(in, []byte("PE\x00\x00")) + fileHeaderLen + checksumAt
	clear(in[at : at+4])
	if got, want := Checksum(in), before.OptionalHeader.(*pe.OptionalHeader64).CheckSum; got != want {
		t.Errorf("Checksum of the stub = %#x, want %#x", got, want)
	}

	objcopy, err := exec.LookPath("objcopy")
	if err != nil {
		t.Skip("objcopy is not installed")
	}
	ours, err := pe.NewFile(bytes.NewReader(build(t, sample()...)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var args []string
	for _, s := range sample() {
		if len(s.Data) == 0 {
			continue // objcopy drops it
		}
		file := filepath.Join(dir, s.Name)
		if err := os.WriteFile(file, s.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--add-section", s.Name+"="+file,
			"--change-section-vma", fmt.Sprintf("%s=%#x", s.Name, ours.Section(s.Name).VirtualAddress))
	}
	out, err := exec.Command(objcopy, append(args, stubFile, filepath.Join(dir, "out"))...).CombinedOutput()
	if err != nil {
		t.Fatalf("objcopy: %v\n%s", err, out)
	}
	theirs, err := pe.Open(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	for _, want := range theirs.Sections {
		got := ours.Section(want.Name)
		if got == nil {
			t.Errorf("there is no section %s", want.Name)
			continue
		}
		// Alignment bits are for linkers; where the data are is each tool's business.
		const align = 0x00f00000
		if got.VirtualAddress != want.VirtualAddress || got.VirtualSize != want.VirtualSize || got.Characteristics&^align != want.Characteristics&^align {
			t.Errorf("section %s = %+v, want %+v", want.Name, got.SectionHeader, want.SectionHeader)
		}
		a, errA := got.Data()
		b, errB := want.Data()
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("section %s has other content (%v, %v)", want.Name, errA, errB)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	one := Section{Kernel, []byte("x")}
	tests := map[string]struct {
		stub     []byte
		sections []Section
	}{
		"no program":      {[]byte("#!/bin/sh"), []Section{one}},
		"nothing":         {nil, []Section{one}},
		"cut":             {stub(t)[:70000], []Section{one}},
		"twice":           {stub(t), []Section{one, one}},
		"in the stub":     {stub(t), []Section{{".text", nil}}},
		"long name":       {stub(t), []Section{{".toolongname", nil}}},
		"no name":         {stub(t), []Section{{"", nil}}},
		"no room":         {stub(t), make([]Section, 100)},
		"a signed header": {bytes.Replace(stub(t), []byte("\x0b\x02"), []byte("\x0b\x01"), 1), []Section{one}},
	}
	for name, tt := range tests {
		if _, err := Build(tt.stub, tt.sections...); err == nil {
			t.Errorf("%s: Build = nil, want an error", name)
		}
	}
}

// TestTextTwice: which of two command lines counts must not be a question.
func TestTextTwice(t *testing.T) {
	out := build(t, Section{CommandLine, []byte("a")}, Section{".cmdlinX", []byte("b")})
	out = bytes.Replace(out, []byte(".cmdlinX"), []byte(CommandLine), 1)
	f, err := Open(bytes.NewReader(out), int64(len(out)))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := f.Text(CommandLine); err == nil || !strings.Contains(err.Error(), "more than one") {
		t.Errorf("Text = %q, %v, want it refused", text, err)
	}
}

// smallStub is the least that parse takes: a seed for the fuzzer, which would
// spend its time on the real one's 80 kB.
func smallStub() []byte {
	b := make([]byte, 1024)
	copy(b, "MZ")
	b[dosNewHeader] = 0x40
	copy(b[0x40:], "PE\x00\x00")
	b[0x40+optionalLen] = minOptionalLen
	o := b[0x40+fileHeaderLen:]
	o[0], o[1] = 0x0b, 0x02
	o[sectionAlign+1], o[fileAlign+1], o[headersLen+1] = 2, 2, 4
	return b
}

func TestSmallStub(t *testing.T) {
	out, err := Build(smallStub(), sample()...)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(bytes.NewReader(out), int64(len(out)))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := f.Text(CommandLine); err != nil || text != string(sample()[1].Data) {
		t.Errorf("Text = %q, %v", text, err)
	}
}

// FuzzOpen: whatever the bytes, reading a section stays inside of them, and what
// can be opened can be built on.
func FuzzOpen(f *testing.F) {
	f.Add(smallStub())
	out, err := Build(smallStub(), sample()[:2]...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(out)
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for _, p := range file.table {
			if p.at < 0 || p.size < 0 || p.at+p.size > len(data) {
				t.Errorf("section %s is at %d with %d bytes, outside of %d", p.name, p.at, p.size, len(data))
			}
		}
		out, err := Build(data, Section{".added", []byte("x")})
		if err != nil {
			return
		}
		again, err := Open(bytes.NewReader(out), int64(len(out)))
		if err != nil {
			t.Fatalf("what was built can't be opened: %v", err)
		}
		if text, err := again.Text(".added"); err != nil || text != "x" {
			t.Errorf("Text = %q, %v, want x", text, err)
		}
		if diff := cmp.Diff(len(file.table)+1, len(again.table)); diff != "" {
			t.Errorf("number of sections (-want +got):\n%s", diff)
		}
	})
}
