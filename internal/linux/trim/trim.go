// Package trim gives back memory that a program needed for its start only: the
// heap's free pages, and the pages of the program itself, which are mapped in
// large strides as it runs through its initialisation.
//
// It changes this process alone. What is needed again is mapped again from the
// page cache, where the kernel may by then have dropped the rest.
package trim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Self trims this process.
func Self() error {
	debug.FreeOSMemory()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer maps.Close()
	found, err := parse(maps, program)
	if err != nil {
		return fmt.Errorf("read own memory map: %w", err)
	}
	var errs []error
	for _, r := range found {
		// It holds nothing that is not in the file: forgetting its pages loses
		// nothing (madvise(2)).
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED)
		if errno != 0 {
			errs = append(errs, fmt.Errorf("madvise %x-%x: %w", r.start, r.end, errno))
		}
	}
	return errors.Join(errs...)
}

type region struct{ start, end uintptr }

// parse finds the read-only mappings of a file of which no page was ever
// written to, as relocations are, in a table as in proc(5), /proc/pid/smaps:
// "start-end perms offset device inode path", then "Name: value" lines.
func parse(maps io.Reader, file string) ([]region, error) {
	var found []region
	var current *region
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 1 && fields[0] == "Anonymous:" {
			if current != nil && fields[1] == "0" {
				found = append(found, *current)
			}
			continue
		}
		if len(fields) < 5 || strings.HasSuffix(fields[0], ":") {
			continue
		}
		current = nil
		if len(fields) < 6 || fields[5] != file || !strings.HasPrefix(fields[1], "r-") || !strings.HasSuffix(fields[1], "p") {
			continue
		}
		current = new(region)
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &current.start, &current.end); err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
	}
	return found, lines.Err()
}
