package wipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// walk empties one folder. It holds two descriptors at most, however deep the
// tree is: the folder that it is in, and the one that it is about to enter. It
// goes down by name and up by "..", and never by a path, so that nobody can
// move a link into the way; what it comes up to must be what it came from.
type walk struct {
	root  string
	at    int     // descriptor of the innermost of above
	above []level // from the root to where it is
	errs  []error
	more  int // errors that are left out
}

// level is a folder that is being emptied.
type level struct {
	name     string // in the folder above
	dev, ino uint64
	names    []string // still to be looked at
	stays    bool     // something in it could not be removed
}

// empty removes what is in a folder, except names in keep. It goes on after what
// can't be removed and tells of each.
func empty(ctx context.Context, path string, keep []string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	w := &walk{root: path, at: -1}
	defer func() { unix.Close(w.at) }() // it was only read from
	if err := w.enter("", fd); err != nil {
		return w.failed("read", "", err)
	}
	top := &w.above[0]
	top.names = slices.DeleteFunc(top.names, func(name string) bool { return slices.Contains(keep, name) })
	for {
		if err := ctx.Err(); err != nil {
			return w.ended(err)
		}
		inner := &w.above[len(w.above)-1]
		switch {
		case len(inner.names) > 0:
			name := inner.names[len(inner.names)-1]
			inner.names = inner.names[:len(inner.names)-1]
			w.remove(name)
		case len(w.above) == 1:
			return w.ended(nil)
		default:
			if err := w.leave(); err != nil {
				return w.ended(err)
			}
		}
	}
}

// remove removes a name, or enters it when it is a folder on the same mount.
func (w *walk) remove(name string) {
	fd, err := unix.Openat2(w.at, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		w.unlink(name, 0)
	case errors.Is(err, unix.ENOENT):
	case errors.Is(err, unix.EXDEV):
		w.fail("wipe", name, errors.New("something is mounted there"))
	case err != nil:
		w.fail("open", name, err)
	default:
		if err := w.enter(name, fd); err != nil {
			w.fail("read", name, err)
		}
	}
}

// enter makes an open folder the innermost one.
func (w *walk) enter(name string, fd int) error {
	var st unix.Stat_t
	names, err := namesIn(fd)
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		unix.Close(fd) // it was only read from
		return err
	}
	unix.Close(w.at) // at first there is none
	w.at = fd
	w.above = append(w.above, level{name: name, dev: st.Dev, ino: st.Ino, names: names})
	return nil
}

// leave goes up and removes the folder that it comes from. An error says that
// it can't go on.
func (w *walk) leave() error {
	done, up := w.above[len(w.above)-1], w.above[len(w.above)-2]
	fd, err := unix.Openat(w.at, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return w.failed("leave", "", err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Dev != up.dev || st.Ino != up.ino) {
		err = errors.New("it was moved elsewhere meanwhile")
	}
	if err != nil {
		unix.Close(fd) // it was not even read from
		return w.failed("leave", "", err)
	}
	unix.Close(w.at) // it was only read from
	w.at = fd
	w.above = w.above[:len(w.above)-1]
	if done.stays {
		w.above[len(w.above)-1].stays = true
		return nil
	}
	w.unlink(done.name, unix.AT_REMOVEDIR)
	return nil
}

func (w *walk) unlink(name string, flags int) {
	if err := unix.Unlinkat(w.at, name, flags); err != nil && !errors.Is(err, unix.ENOENT) {
		w.fail("remove", name, err)
	}
}

func (w *walk) fail(op, name string, err error) {
	w.above[len(w.above)-1].stays = true
	if len(w.errs) == maxErrors {
		w.more++
		return
	}
	w.errs = append(w.errs, w.failed(op, name, err))
}

// ended is what went wrong, with what ended the walk if that is not its end.
func (w *walk) ended(why error) error {
	if w.more > 0 {
		w.errs = append(w.errs, fmt.Errorf("and %d more", w.more))
	}
	return errors.Join(append(w.errs, why)...)
}

// failed names the path, which nothing else needs: in a deep tree it is long.
func (w *walk) failed(op, name string, err error) error {
	parts := []string{w.root}
	for _, l := range w.above {
		parts = append(parts, l.name)
	}
	path := filepath.Join(append(parts, name)...)
	if over := len(path) - maxPath; over > 0 {
		path = fmt.Sprintf("%s…(%d bytes)…%s", path[:maxPath/2], over, path[len(path)-maxPath/2:])
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

const (
	maxErrors = 100  // that are told of
	maxPath   = 1024 // bytes of a path in an error
)

// namesIn reads an open folder, which stays open.
func namesIn(fd int) ([]string, error) {
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("getdents64", err)
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
