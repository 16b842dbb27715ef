package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// listening looks for a listener in the kernel's tables (proc(5), /proc/net/tcp):
// the second field is the local address, the fourth the state, 0A is LISTEN.
func listening(port int) (bool, error) {
	for _, path := range []string{"/proc/self/net/tcp6", "/proc/self/net/tcp"} {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			continue
		}
		if err != nil {
			return false, err
		}
		if hasListener(string(text), port) {
			return true, nil
		}
	}
	return false, nil
}

func hasListener(table string, port int) bool {
	suffix := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) > 3 && fields[3] == "0A" && strings.HasSuffix(fields[1], suffix) {
			return true
		}
	}
	return false
}
