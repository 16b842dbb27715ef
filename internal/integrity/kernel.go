package integrity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"talos/internal/cmdline"
	"talos/internal/secureboot"
)

// modules says whether code can get into the running kernel.
func (v *verification) modules(context.Context) (string, error) {
	_, err := os.Stat(v.path("proc", "modules"))
	if errors.Is(err, fs.ErrNotExist) {
		return "this kernel can load none", nil
	}
	if err != nil {
		return "", err
	}
	off, err := v.text("proc", "sys", "kernel", "modules_disabled")
	if err == nil && off == "1" {
		return "loading is switched off until the next start", nil
	}
	return "", errors.New("this kernel can load modules, which no hash of the root covers")
}

// secureBoot says whether the firmware starts only what it trusts.
func (v *verification) secureBoot(context.Context) (string, error) {
	value, err := v.variable(secureboot.StateVariable)
	if errors.Is(err, fs.ErrNotExist) {
		return "", reason("off: this firmware has no such thing, and starts any kernel image")
	}
	if err != nil {
		return "", err
	}
	if len(value) != 1 || value[0] != 1 {
		return "", reason("off: the firmware starts any kernel image")
	}
	v.secure = true
	return "on: the firmware starts only what is signed by a key that it trusts", nil
}

// variable reads one of the firmware's.
func (v *verification) variable(name string) ([]byte, error) {
	const attributes = 4 // bytes before the value
	file := v.path("sys", "firmware", "efi", "efivars", name)
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(b) < attributes {
		return nil, &fs.PathError{Op: "read", Path: file, Err: fmt.Errorf("%d bytes, want at least %d", len(b), attributes)}
	}
	return b[attributes:], nil
}

// lockdown says whether the kernel keeps root itself from changing it.
func (v *verification) lockdown(context.Context) (string, error) {
	modes, err := v.text("sys", "kernel", "security", "lockdown")
	if err != nil {
		return "", err
	}
	_, mode, _ := strings.Cut(modes, "[")
	mode, _, _ = strings.Cut(mode, "]")
	if mode == "integrity" || mode == "confidentiality" {
		return mode, nil
	}
	line, err := v.text("proc", "cmdline")
	if err != nil {
		return "", err
	}
	if _, asked := cmdline.Parse(line).Last("lockdown"); v.secure || asked {
		return "", fmt.Errorf("it is %q, and with Secure Boot or lockdown= it must not be", mode)
	}
	return "", reason("none: it comes with Secure Boot, or with the kernel argument lockdown=integrity")
}
