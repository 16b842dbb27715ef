package integrity

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"talos/internal/fat"
	"talos/internal/uki"
)

// kernelImage says whether the slot's kernel image would start what runs: the
// same root, version and kernel. What else is in it only its signature or its
// checksum can tell, which is in the detail.
func (v *verification) kernelImage(context.Context) (string, error) {
	b, err := v.started()
	if err != nil {
		return "", err
	}
	f, err := b.find(b.slot.KernelPath())
	if err != nil {
		return "", err
	}
	b.read.begin(f.Data.Size())
	sum := sha256.New()
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(f.Data, 0, f.Data.Size()), make([]byte, 256<<10)); err != nil {
		return "", fmt.Errorf("%s: %w", f.Name, err)
	}
	release, err := v.inside(f)
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.Name, err)
	}
	return fmt.Sprintf("%s, kernel %s, SHA-256 %x", f.Name, release, sum.Sum(nil)), nil
}

// inside compares the sections of a kernel image with what runs.
func (v *verification) inside(f *fat.File) (release string, err error) {
	image, err := uki.Open(f.Data, f.Data.Size())
	if err != nil {
		return "", err
	}
	line, err := image.Text(uki.CommandLine)
	if err != nil {
		return "", err
	}
	if err := v.sameRoot(line); err != nil {
		return "", err
	}
	if v.line = line; v.options != "" && !v.secure { // else the image takes no other
		v.line = v.options
	}
	text, err := image.Text(uki.OSRelease)
	if err != nil {
		return "", err
	}
	if _, err := v.sameVersion("it", text); err != nil {
		return "", err
	}
	initrd, err := image.Section(uki.Initrd)
	if err != nil {
		return "", err
	}
	if initrd.Size() == 0 {
		return "", errors.New("its initramfs is empty")
	}
	return v.sameKernel(image)
}

// sameKernel says whether the kernel in an image is the build that runs.
func (v *verification) sameKernel(image *uki.File) (release string, err error) {
	if release, err = v.text("proc", "sys", "kernel", "osrelease"); err != nil {
		return "", err
	}
	build, err := v.text("proc", "sys", "kernel", "version")
	if err != nil {
		return "", err
	}
	if said, err := image.Text(uki.KernelRelease); err != nil {
		return "", err
	} else if said != release {
		return "", fmt.Errorf("it has kernel %q, and %q runs", said, release)
	}
	kernel, err := image.Section(uki.Kernel)
	if err != nil {
		return "", err
	}
	banner, err := kernelBanner(kernel)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(banner, release+" ") || !strings.HasSuffix(banner, " "+build) {
		return "", fmt.Errorf("it has the kernel %q, and %s %s runs", banner, release, build)
	}
	return release, nil
}

// kernelBanner is what a kernel for x86 says of itself: release, builder, build
// (Documentation/arch/x86/boot.rst, kernel_version).
func kernelBanner(r io.ReaderAt) (string, error) {
	const header, magicAt, pointerAt, pointerBase = 0x210, 0x202, 0x20e, 0x200
	head := make([]byte, header)
	if _, err := r.ReadAt(head, 0); err != nil {
		return "", fmt.Errorf("the header of its kernel: %w", err)
	}
	if string(head[magicAt:magicAt+4]) != "HdrS" {
		return "", errors.New("what should be its kernel is none")
	}
	text := make([]byte, 512)
	n, err := r.ReadAt(text, pointerBase+int64(binary.LittleEndian.Uint16(head[pointerAt:])))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	banner, _, _ := strings.Cut(string(text[:n]), "\x00")
	return banner, nil
}

// kernelArguments says whether the kernel was told just what the slot says.
func (v *verification) kernelArguments(context.Context) (string, error) {
	if _, err := v.started(); err != nil {
		return "", err
	}
	if v.line == "" {
		return "", errBefore
	}
	line, err := v.text("proc", "cmdline")
	if err != nil {
		return "", err
	}
	given, want := strings.Fields(line), strings.Fields(v.line)
	if slices.Equal(given, want) {
		return "those of " + v.source(), nil
	}
	return "", fmt.Errorf("the kernel was not started with those of %s: besides it was told %s, and not %s", v.source(), keys(given, want), keys(want, given))
}

// source is what the kernel's arguments come from.
func (v *verification) source() string {
	if v.options != "" && !v.secure {
		return "the boot entry"
	}
	return "the kernel image"
}

// keys are the arguments of have that want has not, without their values: some
// have secrets.
func keys(have, want []string) string {
	var out []string
	for _, a := range have {
		if !slices.Contains(want, a) {
			key, _, _ := strings.Cut(a, "=")
			out = append(out, key)
		}
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, " ")
}
