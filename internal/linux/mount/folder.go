package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Folder is an open folder that something is or will be mounted on.
type Folder struct{ file *os.File }

// OpenFolder opens one by its absolute, clean path, and makes what is missing of
// it. No symbolic link on the way is followed: whoever may write there could lead
// the mount to another place.
func OpenFolder(name string) (*Folder, error) {
	if !path.IsAbs(name) || path.Clean(name) != name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("want an absolute path that is clean")}
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	at, err := unix.Open("/", flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	seen := ""
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part == "" {
			break // it is /
		}
		seen += "/" + part
		next, err := openPart(at, part, flags)
		if err != nil {
			err = refusal(at, part, seen, err)
			unix.Close(at)
			return nil, fmt.Errorf("mount point %s: %w", name, err)
		}
		unix.Close(at)
		at = next
	}
	return &Folder{os.NewFile(uintptr(at), name)}, nil
}

func openPart(at int, part string, flags int) (int, error) {
	fd, err := unix.Openat(at, part, flags, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := unix.Mkdirat(at, part, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return unix.Openat(at, part, flags, 0)
}

// refusal says what is in the way.
func refusal(at int, part, seen string, err error) error {
	target := make([]byte, unix.PathMax)
	if n, linkErr := unix.Readlinkat(at, part, target); linkErr == nil {
		return fmt.Errorf("%s is a symbolic link, to %q, and none is followed: remove it", seen, target[:n])
	}
	return &fs.PathError{Op: "open", Path: seen, Err: err}
}

// Close lets go of it.
func (f *Folder) Close() error { return f.file.Close() }

// Mounted says whether it is the root of what is mounted there.
func (f *Folder) Mounted() (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.file.Fd()), "", unix.AT_EMPTY_PATH, 0, &st); err != nil {
		return false, &fs.PathError{Op: "statx", Path: f.file.Name(), Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Open opens it to read.
func (f *Folder) Open() (*os.File, error) {
	fd, err := unix.Openat(int(f.file.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: f.file.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.file.Name()), nil
}

// Chmod changes its mode.
func (f *Folder) Chmod(mode fs.FileMode) error {
	open, err := f.Open()
	if err != nil {
		return err
	}
	defer open.Close()
	return open.Chmod(mode)
}

// On mounts on the folder, whatever its path leads to by now. The target is what
// errors call it.
func (p Point) On(f *Folder) error {
	name := p.Target
	p.Target = fmt.Sprintf("/proc/self/fd/%d", f.file.Fd())
	err := p.Mount()
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		pathErr.Path = name
	}
	return err
}
