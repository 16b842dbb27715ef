package install

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/cmdline"
	"talos/internal/slot"
	"talos/internal/uki"
	"talos/internal/verity"
)

// Names of what a Source is made of, in one folder.
const (
	RootFile   = "rootfs.img"           // SquashFS with its hash tree behind it
	KernelFile = "talos.efi"            // unified kernel image for that root
	LoaderFile = "systemd-bootx64.efi"  // the boot loader
	KeysFolder = "secureboot"           // optional; its *.auth are keys to enrol
	maxProgram = 200 * mib              // more than fits beside anything else
	keySuffix  = ".auth"                // signed lists of keys for the firmware
	systemName = "Talos"                // what the loader's menu says
	loaderConf = "timeout 0\neditor no" // no menu unless a key is held; nobody edits the command line
)

// Source is what is installed, checked: the kernel image starts that root.
type Source struct {
	Version     string
	CommandLine string // of the kernel image
	Root        verity.Param

	root   *os.File
	kernel []byte
	loader []byte
	keys   map[string][]byte // by name
}

// OpenSource reads a folder and checks that its parts belong together.
func OpenSource(dir string) (*Source, error) {
	s := &Source{keys: map[string][]byte{}}
	err := s.open(dir)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("installation source %s: %w", dir, err)
	}
	return s, nil
}

// Close closes it.
func (s *Source) Close() error {
	if s.root == nil {
		return nil
	}
	return s.root.Close()
}

func (s *Source) open(dir string) (err error) {
	if s.kernel, err = program(filepath.Join(dir, KernelFile)); err != nil {
		return err
	}
	if s.loader, err = program(filepath.Join(dir, LoaderFile)); err != nil {
		return err
	}
	if err := s.readKeys(filepath.Join(dir, KeysFolder)); err != nil {
		return err
	}
	if err := s.readKernel(); err != nil {
		return fmt.Errorf("%s: %w", KernelFile, err)
	}
	if s.root, err = os.Open(filepath.Join(dir, RootFile)); err != nil {
		return err
	}
	if size := s.Root.Size(); size > RootSize {
		return fmt.Errorf("%s: %d bytes, and a root partition has %d", RootFile, size, int64(RootSize))
	}
	if err := verity.Check(s.root, s.Root); err != nil {
		return fmt.Errorf("%s: %w", RootFile, err)
	}
	return nil
}

func program(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProgram+1))
	if err == nil && len(b) > maxProgram {
		err = &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it has more than %d bytes", maxProgram)}
	}
	return b, err
}

func (s *Source) readKeys(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), keySuffix) {
			continue
		}
		if s.keys[e.Name()], err = program(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// readKernel reads what the kernel image says of itself.
func (s *Source) readKernel() error {
	image, err := uki.Open(bytes.NewReader(s.kernel), int64(len(s.kernel)))
	if err != nil {
		return err
	}
	line, err := image.Text(uki.CommandLine)
	if err != nil {
		return err
	}
	if s.Root, err = verity.FromCommandLine(cmdline.Parse(line)); err != nil {
		return err
	}
	s.CommandLine = strings.Join(strings.Fields(strings.Trim(line, "\x00")), " ")
	release, err := image.Text(uki.OSRelease)
	if err != nil {
		return err
	}
	for scan := bufio.NewScanner(strings.NewReader(release)); scan.Scan(); {
		if v, ok := strings.CutPrefix(scan.Text(), "VERSION_ID="); ok {
			s.Version = strings.Trim(v, `"'`)
		}
	}
	if s.Version == "" {
		return errors.New("it does not say its VERSION_ID")
	}
	return nil
}

// esp are the files of the EFI system partition, with the system in slot A,
// good at once: there is nothing to go back to.
func (s *Source) esp(o Options) (slot.Memory, error) {
	files := slot.Memory{}
	for _, name := range slot.LoaderPaths() {
		files[name] = s.loader
	}
	conf := loaderConf + "\n"
	if o.Enroll != "" {
		conf += "secure-boot-enroll " + o.Enroll + "\n"
	}
	files[slot.LoaderConfig] = []byte(conf)
	for name, key := range s.keys {
		files[slot.KeysDir+"/"+name] = key
	}
	image := slot.Image{Title: systemName + " " + s.Version, Version: s.Version}
	cmdline, err := Arguments(s.CommandLine, o.Args)
	if err != nil {
		return nil, err
	}
	if cmdline != s.CommandLine {
		image.Options = cmdline
	}
	for _, plan := range []func(slot.State) ([]slot.Step, error){
		func(st slot.State) ([]slot.Step, error) { return slot.Fill(st, "", slot.A, s.kernel) },
		func(st slot.State) ([]slot.Step, error) {
			return slot.Activate(st, "", slot.A, image, 0)
		},
	} {
		state, err := slot.Read(files)
		if err != nil {
			return nil, err
		}
		steps, err := plan(state)
		if err != nil {
			return nil, err
		}
		if err := slot.Apply(files, steps); err != nil {
			return nil, err
		}
	}
	return files, nil
}
