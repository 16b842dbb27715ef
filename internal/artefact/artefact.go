// Package artefact checks what imager made: that files are those of a signed
// list, that kernel images and boot loaders are signed for Secure Boot, and that
// each root is the one that its kernel will ask for.
//
// It looks into files as deep as a machine would: an ISO and a disk image have
// partitions, those a FAT file system, that a kernel image, that an initramfs,
// and that perhaps a root and a kernel image again. It reads only, and never
// more than it needs; what it reads may be hostile. It keeps no state and is safe
// for concurrent use.
package artefact

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/cmdline"
	"talos/internal/secureboot"
	"talos/internal/uki"
	"talos/internal/verity"
)

// Outcome of a check.
type Outcome string

// The outcomes. Skipped is what nobody gave the means for.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Result is what one check of one part of a file came to.
type Result struct {
	File    string // as it was given
	Part    string // inside of it; empty for the file itself
	Check   string // "checksum", "list signature", "secure boot", "root", "version"
	Outcome Outcome
	Detail  string
}

// Trust is by what signatures are checked.
type Trust struct {
	Checksums   ed25519.PublicKey // of lists of checksums; nil: not checked
	Certificate *x509.Certificate // of programs for the firmware; nil: not checked
}

// Check looks at a file: a list of checksums, a program for the firmware, an
// ISO, a raw disk image, a root image, or an initramfs. The error is for what
// can't be read or is none of these; what is wrong with the content is a
// Result.
func Check(name string, trust Trust) ([]Result, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	if strings.HasPrefix(filepath.Base(name), SumsName) {
		return checkSums(name, trust.Checksums)
	}
	c := &checker{file: name, trust: trust}
	err = c.walk(io.NewSectionReader(f, 0, info.Size()))
	if errors.Is(err, errUnknown) {
		return nil, fmt.Errorf("%s: want a list of checksums, a kernel image, an ISO, a raw disk image, a root or an initramfs", name)
	}
	return c.results, err
}

// checker collects what is found in one file.
type checker struct {
	file    string
	trust   Trust
	results []Result
	version string // of the program that is being looked at
	disk    bool   // roots are in partitions, and checked there
}

func (c *checker) add(part, check string, outcome Outcome, format string, args ...any) {
	c.results = append(c.results, Result{c.file, part, check, outcome, fmt.Sprintf(format, args...)})
}

var errUnknown = errors.New("of no kind that is known")

// walk recognises what the file is.
func (c *checker) walk(r *io.SectionReader) error {
	head := make([]byte, min(r.Size(), 64<<10))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", c.file, err)
	}
	at := func(offset int, magic string) bool {
		return len(head) >= offset+len(magic) && string(head[offset:offset+len(magic)]) == magic
	}
	switch {
	case at(isoMagicAt, isoMagic), at(512, gptMagic), at(4096, gptMagic):
		return c.medium(r, at(isoMagicAt, isoMagic))
	case at(0, "MZ"):
		return c.program("", r)
	case at(0, squashMagic):
		return c.rootFile(r)
	case at(0, cpioMagic), at(0, zstdMagic):
		params, err := c.initramfs("", r, nil)
		if err == nil && len(params) == 0 {
			c.add("", "root", Skipped, "the initramfs has no root in it")
		}
		return err
	case at(0, "QFI\xfb"):
		return fmt.Errorf("%s: is a qcow2 image: make it raw with qemu-img convert, or check it by its list of checksums", c.file)
	}
	return errUnknown
}

const squashMagic = "hsqs"

// program checks a kernel image or a boot loader.
func (c *checker) program(part string, r *io.SectionReader) error {
	c.signature(part, r)
	f, err := uki.Open(r, r.Size())
	if err != nil {
		c.add(part, "kernel image", Failed, "%v", err)
		return nil
	}
	if !f.Has(uki.CommandLine) {
		return nil // a boot loader
	}
	c.checkVersion(part, f)
	param, err := paramOf(f)
	if err != nil {
		c.add(part, "root", Failed, "%v", err)
		return nil
	}
	initrd, err := f.Section(uki.Initrd)
	if err != nil {
		c.add(part, "initramfs", Failed, "%v", err)
		return nil
	}
	found, err := c.initramfs(part, initrd, &param)
	if err != nil {
		c.add(part, "initramfs", Failed, "%v", err)
		return nil
	}
	if len(found) == 0 && !c.disk {
		c.add(part, "root", Skipped, "wants %s, which is on the disk", param)
	}
	return nil
}

func paramOf(f *uki.File) (verity.Param, error) {
	line, err := f.Text(uki.CommandLine)
	if err != nil {
		return verity.Param{}, err
	}
	return verity.FromCommandLine(cmdline.Parse(line))
}

func (c *checker) signature(part string, r *io.SectionReader) {
	if c.trust.Certificate == nil {
		c.add(part, "secure boot", Skipped, "no certificate given")
		return
	}
	if err := secureboot.Verify(r, r.Size(), c.trust.Certificate); err != nil {
		c.add(part, "secure boot", Failed, "%v", err)
		return
	}
	c.add(part, "secure boot", OK, "signed by %s", c.trust.Certificate.Subject.CommonName)
}

// checkVersion holds a kernel image and what it brings along to one version.
func (c *checker) checkVersion(part string, f *uki.File) {
	text, err := f.Text(uki.OSRelease)
	if err != nil {
		c.add(part, "version", Failed, "%v", err)
		return
	}
	version := ""
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_ID="); ok {
			version = strings.Trim(v, `"`)
		}
	}
	switch {
	case version == "":
		c.add(part, "version", Failed, "the kernel image names no version")
	case c.version != "" && c.version != version:
		c.add(part, "version", Failed, "%s, while another part is %s", version, c.version)
	default:
		c.version = version
		c.add(part, "version", OK, "%s", version)
	}
}

// root checks that a root image is that of the parameter: data and tree.
func (c *checker) root(part string, r *io.SectionReader, want verity.Param) {
	if want.Size() > r.Size() {
		c.add(part, "root", Failed, "it has %d bytes, its kernel wants %d", r.Size(), want.Size())
		return
	}
	if err := verity.Check(r, want); err != nil {
		c.add(part, "root", Failed, "%v", err)
		return
	}
	c.add(part, "root", OK, "%s", want)
}

// rootFile checks a root image by the parameter beside it.
func (c *checker) rootFile(r *io.SectionReader) error {
	name := strings.TrimSuffix(c.file, filepath.Ext(c.file)) + ".root"
	line, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		c.add("", "root", Skipped, "there is no %s that says what it should be", name)
		return nil
	}
	if err != nil {
		return err
	}
	param, err := verity.Parse(strings.TrimSpace(string(line)))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c.root("", r, param)
	return nil
}
