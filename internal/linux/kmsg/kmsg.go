// Package kmsg writes to the kernel's log, so that what PID 1 says is on the
// console and in dmesg.
//
// A Writer is safe for concurrent use.
package kmsg

import (
	"bytes"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxRecord is what the kernel takes in one record with its prefix (LOG_LINE_MAX).
const maxRecord = 976

// Writer sends each line as a record. What the kernel does not take is dropped.
type Writer struct {
	prefix string
	mu     sync.Mutex // orders records
	file   *os.File
}

// Open opens /dev/kmsg; prefix comes before each line.
func Open(prefix string) (*Writer, error) {
	// Non-blocking: a full log must not stop PID 1.
	file, err := os.OpenFile("/dev/kmsg", os.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Writer{prefix: "<6>" + prefix, file: file}, nil // 6: information, facility kernel turns into user
}

// Write never fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range bytes.Lines(p) {
		line = bytes.TrimRight(line, "\n")
		for len(line) > 0 {
			n := min(len(line), maxRecord-len(w.prefix)-1)
			record := append([]byte(w.prefix), line[:n]...)
			// A record that is refused is lost: there is nobody to tell.
			_, _ = w.file.Write(append(record, '\n'))
			line = line[n:]
		}
	}
	return len(p), nil
}
