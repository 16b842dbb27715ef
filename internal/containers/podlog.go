package containers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
)

const (
	// podLogDir is where the kubelet has containers' logs kept.
	podLogDir = "/var/log/pods"
	// maxLine bounds a line of such a file; containerd breaks them at 16 KiB.
	maxLine = 64 << 10
)

// Logs returns what a container of Kubernetes printed, by any name that Find
// knows: the last tail lines, or all when tail is negative. With follow it goes
// on, across rotations and restarts of the container, until ctx ends or Close.
func (c *Client) Logs(ctx context.Context, name string, follow bool, tail int) (io.ReadCloser, error) {
	found, err := c.Find(ctx, CRI, layout.KubeNamespace, name)
	if err != nil {
		return nil, err
	}
	return podLogs(ctx, podLogDir, found, follow, tail)
}

func podLogs(ctx context.Context, root string, c Container, follow bool, tail int) (io.ReadCloser, error) {
	if c.PodUID == "" || c.Name == "" {
		return nil, fmt.Errorf("logs of %s: not a container of Kubernetes", c.DisplayName())
	}
	dir := filepath.Join(root, c.PodNamespace+"_"+c.PodName+"_"+c.PodUID, c.Name)
	path, err := newestLog(dir)
	if err != nil {
		return nil, fmt.Errorf("logs of %s: %w", c.DisplayName(), err)
	}
	file, err := openLog(root, path)
	if err != nil {
		return nil, fmt.Errorf("logs of %s: %w", c.DisplayName(), err)
	}
	if tail >= 0 {
		if err := seekTail(file, tail); err != nil {
			file.Close()
			return nil, fmt.Errorf("logs of %s: %w", c.DisplayName(), err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	return &podLog{ctx: ctx, cancel: cancel, root: root, dir: dir, path: path, file: file, lines: bufio.NewReader(file), follow: follow}, nil
}

// openLog opens a file below root. Pods that collect logs may write there, so
// no link leads out of it, and no pipe is waited for: who may read logs may
// not read all files of the node.
func openLog(root, path string) (*os.File, error) {
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return nil, err
	}
	folder, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	file, err := folder.OpenFile(rel, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: not a regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// newestLog is the file of the last start: they are called 0.log, 1.log, ….
func newestLog(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	newest := -1
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".log")); err == nil {
			newest = max(newest, n)
		}
	}
	if newest < 0 {
		return "", errors.New("no log file yet")
	}
	return filepath.Join(dir, strconv.Itoa(newest)+".log"), nil
}

// seekTail moves to where the last n lines begin.
func seekTail(file *os.File, n int) error {
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return err
	}
	buf := make([]byte, 64<<10)
	for at, newlines := end, 0; at > 0; {
		size := min(at, int64(len(buf)))
		at -= size
		if _, err := file.ReadAt(buf[:size], at); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' {
				continue
			}
			if newlines++; newlines > n {
				_, err := file.Seek(at+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

// podLog reads the kubelet's format: "<time> <stdout|stderr> <P|F> <text>",
// where P is a part of a line that goes on.
type podLog struct {
	ctx    context.Context // of the whole read
	cancel context.CancelFunc
	root   string // of all pods' logs
	dir    string
	path   string
	file   *os.File
	lines  *bufio.Reader
	follow bool
	whole  []byte // of an unfinished line in the file
	rest   []byte // still to be returned
}

func (l *podLog) Read(p []byte) (int, error) {
	for len(l.rest) == 0 {
		part, err := l.lines.ReadSlice('\n')
		l.whole = append(l.whole, part[:min(len(part), maxLine-len(l.whole))]...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err == nil {
			if len(l.whole) == maxLine { // the rest is lost, not the end
				l.whole[maxLine-1] = '\n'
			}
			l.rest = stripCRI(l.whole)
			l.whole = nil
			continue
		}
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		if !l.follow {
			return 0, io.EOF
		}
		if err := l.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// more waits a little, then looks whether there is a newer file to go on with.
func (l *podLog) more() error {
	select {
	case <-l.ctx.Done():
		return io.EOF
	case <-time.After(200 * time.Millisecond):
	}
	path, err := newestLog(l.dir)
	if err != nil {
		return io.EOF // the pod is gone
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil // being rotated
	}
	have, err := l.file.Stat()
	if err != nil {
		return err
	}
	if path == l.path && os.SameFile(info, have) {
		return nil
	}
	file, err := openLog(l.root, path)
	if err != nil {
		return nil
	}
	l.file.Close()
	l.path, l.file, l.lines, l.whole = path, file, bufio.NewReader(file), nil
	return nil
}

func (l *podLog) Close() error {
	l.cancel()
	return l.file.Close()
}

// stripCRI returns the text of a line of a log file.
func stripCRI(line []byte) []byte {
	parts := bytes.SplitN(line, []byte(" "), 4)
	if len(parts) != 4 {
		return line
	}
	if bytes.Equal(parts[2], []byte("P")) {
		return bytes.TrimSuffix(parts[3], []byte("\n"))
	}
	return parts[3]
}
