// Boottest is the /init of a machine that starts our kernel with nothing else,
// and tries what the operating system and Kubernetes need of it.
//
// It prints a line "check: NAME: ok" or "check: NAME: what is wrong" for each
// and switches the machine off. Not part of any image.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A check tries one thing. The name is a line of the console, and what the
// test asks for.
type check struct {
	name string
	try  func() error
}

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "boottest: runs as PID 1 of a machine that is tried, and only there")
		os.Exit(1)
	}
	if err := mounts(); err != nil {
		fmt.Println("check: mounts:", err)
	}
	for _, c := range slices.Concat(kernelChecks(), storageChecks(), networkChecks()) {
		fmt.Printf("check: %s: %s\n", c.name, result(c.try))
	}
	fmt.Println("check: end: ok")
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Println("check: power off:", err)
	select {}
}

// result is "ok" or the error on one line. A panic is one of those.
func result(try func() error) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = fmt.Sprint("panic: ", p)
		}
	}()
	if err := try(); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return "ok"
}

func mounts() error {
	return errors.Join(
		mount("proc", "/proc", "proc", ""),
		mount("sysfs", "/sys", "sysfs", ""),
		mount("devtmpfs", "/dev", "devtmpfs", ""),
		mount("tmpfs", "/tmp", "tmpfs", "size=64m"),
	)
}

func mount(source, target, kind, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, 0, data); err != nil {
		return &fs.PathError{Op: "mount", Path: target, Err: fmt.Errorf("%s: %w", kind, err)}
	}
	return nil
}

// holds returns an error that names the words that are not in the text of a file.
func holds(name string, words ...string) func() error {
	return func() error {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		have := strings.FieldsFunc(string(data), func(r rune) bool { return strings.ContainsRune(" \t\n,", r) })
		words = slices.DeleteFunc(slices.Clone(words), func(word string) bool { return slices.Contains(have, word) })
		if len(words) > 0 {
			return fmt.Errorf("%s lacks %s", name, strings.Join(words, " "))
		}
		return nil
	}
}

// exist returns an error for each file that is not there.
func exist(names ...string) func() error {
	return func() error {
		var errs []error
		for _, name := range names {
			_, err := os.Lstat(name)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
}

// absent returns an error for each file that is there.
func absent(names ...string) func() error {
	return func() error {
		var errs []error
		for _, name := range names {
			if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("%s is there (%v)", name, err))
			}
		}
		return errors.Join(errs...)
	}
}

// noCall returns an error if the kernel has a system call.
func noCall(number uintptr) func() error {
	return func() error {
		if _, _, errno := unix.Syscall6(number, 0, 0, 0, 0, 0, 0); errno != unix.ENOSYS {
			return fmt.Errorf("system call %d answers %v, want %v", number, errno, unix.ENOSYS)
		}
		return nil
	}
}
