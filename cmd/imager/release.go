package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/artefact"
	"talos/internal/image"
	"talos/internal/linux/atomicfile"
	"talos/internal/media"
	"talos/internal/sbom"
	"talos/internal/secureboot"
)

func bill(ctx context.Context, f *flag.FlagSet, args []string, stdout io.Writer) error {
	in := rootFlags(f)
	kernel := f.String("kernel", "_out/kernel", "folder of the built kernel")
	program := f.String("init", "_out/bin/init", "program that the kernel starts")
	loader := f.String("loader", "/usr/lib/systemd/boot/efi", "folder of systemd's stub and boot loader")
	out := f.String("o", "_out/talos.spdx.json", "file to write")
	if err := parse(f, args); err != nil {
		return err
	}
	return report(stdout, *out, func() (bool, error) {
		files := []sbom.File{{Name: "init", Source: *program}}
		for _, name := range []string{media.StubFile, media.LoaderFile} {
			files = append(files, sbom.File{Name: name, Source: filepath.Join(*loader, name)})
		}
		source, err := image.Source(filepath.Join(*kernel, "source"))
		if err != nil {
			return false, err
		}
		data, err := image.Bill(ctx, in.tree(ctx), image.KernelFiles(in.kernel), in.tag, files, source...)
		if err != nil {
			return false, err
		}
		return true, atomicfile.Update(*out, data, 0o644)
	})
}

func sums(f *flag.FlagSet, args []string, stdout io.Writer) error {
	key := f.String("key", "", "private key (Ed25519, PEM) to sign the list with, or the folder that talosctl gen secureboot made")
	out := f.String("o", "_out/"+artefact.SumsName, "list to write; its files are beside it")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return errors.New("want the names of files beside the list")
	}
	var private ed25519.PrivateKey
	if *key != "" {
		var err error
		if private, err = secureboot.ReadChecksumsKey(*key); err != nil {
			return err
		}
	}
	return report(stdout, *out, func() (bool, error) { return writeSums(*out, private, f.Args()...) })
}

// writeSums writes the list, and its signature if there is a key.
func writeSums(list string, key ed25519.PrivateKey, names ...string) (written bool, err error) {
	dir := filepath.Dir(list)
	// Reading all files to see that none has changed would take as long as
	// making the list.
	var stamp strings.Builder
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return false, err
		}
		fmt.Fprintf(&stamp, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
	}
	if key != nil {
		fmt.Fprintf(&stamp, "signed by %x\n", key.Public())
	}
	signature := list + artefact.SignatureSuffix
	return image.WriteOutput(list, stamp.String(), func(temp string) error {
		data, err := artefact.Sums(dir, names...)
		if err != nil {
			return err
		}
		// One that is of another list must not stay.
		if err := os.Remove(signature); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if key != nil {
			if err := os.WriteFile(signature, ed25519.Sign(key, data), 0o644); err != nil {
				return err
			}
		}
		return os.WriteFile(temp, data, 0o644)
	})
}
