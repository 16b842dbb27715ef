package media

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/image"
	"talos/internal/secureboot"
)

// stampOf describes an output: what kind, made by which program from which
// texts and files. The program counts so that a changed imager makes all anew.
func stampOf(kind string, texts []string, files ...string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s %q\n", kind, texts)
	for _, f := range append([]string{self}, files...) {
		sum, err := image.FileDigest(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&s, "%s %s\n", sum, filepath.Base(f))
	}
	return s.String(), nil
}

// write makes an output from the release and further texts.
func (r *Release) write(kind, name string, write func(temp string) error, more ...string) (written bool, err error) {
	line, err := r.CommandLine()
	if err != nil {
		return false, err
	}
	texts := append([]string{r.Tag, line}, more...)
	if r.Keys != nil {
		h := sha256.New()
		h.Write(r.Keys.DB.Certificate.Raw)
		for _, name := range secureboot.Enrolment {
			h.Write(r.Keys.Enrolment[name])
		}
		texts = append(texts, hex.EncodeToString(h.Sum(nil)))
	}
	stamp, err := stampOf(kind, texts, filepath.Join(r.Kernel, kernelFile), filepath.Join(r.Kernel, uname), r.Initramfs, r.Root,
		filepath.Join(r.Loader, StubFile), filepath.Join(r.Loader, LoaderFile))
	if err != nil {
		return false, err
	}
	return image.WriteOutput(name, stamp, write)
}
