package fetch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/linux/caps"
	"talos/internal/linux/reap"
)

// program is where the image has noded.
const program = "/usr/bin/noded"

// Child asks servers from a process of its own: another user, without
// capabilities and without a view of other processes.
type Child struct {
	Start func(path string, argv []string, attr *os.ProcAttr) (*reap.Process, error) // a Reaper's
	UID   int
}

// Times beyond those of the client, after which the process itself is stuck.
const (
	slack   = 10 * time.Second
	endTime = 2 * time.Second
)

// Get is Client.Get.
func (c Child) Get(ctx context.Context, u *url.URL, limit int) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout+slack)
	defer cancel()
	body, err := c.ask(bounded, request{u.String(), limit})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return body, err
}

func (c Child) ask(ctx context.Context, r request) ([]byte, error) {
	child, in, out, err := c.start()
	if err != nil {
		return nil, fmt.Errorf("start fetchd: %w", err)
	}
	defer out.Close()
	stop := context.AfterFunc(ctx, func() {
		// What is waited for below ends.
		_, _ = in.SetDeadline(time.Now()), out.SetDeadline(time.Now())
	})
	defer stop()
	// Best effort, as it may have ended: the score was this process's, which the
	// kernel takes last where memory is short.
	_ = caps.SetOOMScore(child.PID, 0)
	// Where it ended before it had read all, its answer says more than that.
	sendErr := errors.Join(json.NewEncoder(in).Encode(r), in.Close())
	body, err := read(out, r.Limit)
	ended := end(ctx, child)
	if err != nil && !errors.As(err, new(told)) {
		return nil, fmt.Errorf("fetchd gave no answer: %w", errors.Join(err, sendErr, ended))
	}
	return body, err
}

// end waits for the process, whose work is done, and says how it ended.
func end(ctx context.Context, child *reap.Process) error {
	select {
	case <-child.Done():
		return child.Err()
	case <-ctx.Done():
	case <-time.After(endTime):
	}
	if err := child.Signal(unix.SIGKILL); err != nil {
		return err
	}
	select {
	case <-child.Done():
		return child.Err()
	case <-time.After(endTime):
		return errors.New("it goes on after SIGKILL")
	}
}

// start makes the process, and the ends of its pipes that are ours.
func (c Child) start() (child *reap.Process, in, out *os.File, err error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	defer childIn.Close()
	out, childOut, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, nil, nil, err
	}
	defer childOut.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err == nil {
		defer null.Close()
		id := uint32(c.UID)
		child, err = c.Start(program, []string{program, "fetchd"}, &os.ProcAttr{
			Dir: "/", Env: []string{"PATH=/usr/bin"}, Files: []*os.File{childIn, childOut, null},
			Sys: &syscall.SysProcAttr{
				Setsid: true, Credential: &syscall.Credential{Uid: id, Gid: id},
				Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
			},
		})
	}
	if err != nil {
		in.Close()
		out.Close()
		return nil, nil, nil, err
	}
	return child, in, out, nil
}

// told is an error that the process has told.
type told struct{ error }

func (t told) Unwrap() error { return t.error }

// read reads an answer. It was written by a process that has read hostile bytes:
// all of it is bounded, and shown as far as it can be.
func read(out io.Reader, limit int) ([]byte, error) {
	r := bufio.NewReaderSize(out, maxAnswer)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	text := printable(a.Text, maxText)
	switch {
	case a.Failed:
		return nil, told{errors.New(text)}
	case a.Status != 0:
		return nil, told{answerError{a.Status, text}}
	case a.Size < 0 || a.Size > limit:
		return nil, fmt.Errorf("it says that the answer has %d bytes, want at most %d", a.Size, limit)
	}
	body := make([]byte, a.Size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("read %d bytes: %w", a.Size, err)
	}
	return body, nil
}
