package console

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// terminal is an open console. Writing to it never waits.
type terminal struct {
	fd     int
	before unix.Termios // as it was found
}

// openTerminal opens a console and stops what typing does there: nobody reads
// it, so it would be echoed over what is shown, or hold it up. With raw what is
// written goes out as it is.
func openTerminal(path string, raw bool) (*terminal, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	t := &terminal{fd: fd}
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "ask for the mode of", Path: path, Err: err}
	}
	t.before = *mode
	mode.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG
	mode.Iflag &^= unix.IXON | unix.IXOFF // Ctrl-S stops nothing
	if raw {
		mode.Oflag &^= unix.OPOST
	}
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, mode); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "set the mode of", Path: path, Err: err}
	}
	return t, nil
}

// close leaves the console as it was found; what fails then matters to nobody.
func (t *terminal) close() {
	_ = unix.IoctlSetTermios(t.fd, unix.TCSETS, &t.before)
	_ = unix.Close(t.fd)
}

// write gives the terminal what it takes now.
func (t *terminal) write(text string) (n int, err error) {
	for n < len(text) {
		m, err := unix.Write(t.fd, []byte(text[n:]))
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN), err == nil && m <= 0:
			return n, nil
		case err != nil:
			return n, fmt.Errorf("write: %w", err)
		default:
			n += m
		}
	}
	return n, nil
}

// size is that of the screen; one that does not tell has 80 columns and 25 rows.
func (t *terminal) size() (cols, rows int) {
	size, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 25
	}
	return int(size.Col), int(size.Row)
}
