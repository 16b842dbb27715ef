package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// request is what the process is asked, on its standard input.
type request struct {
	URL   string `json:"url"`
	Limit int    `json:"limit"`
}

// answer is a line on its standard output. The body follows it.
type answer struct {
	Size   int    `json:"size"` // of the body
	Status int    `json:"status,omitempty"`
	Text   string `json:"text,omitempty"`   // of a status, or of an error
	Failed bool   `json:"failed,omitempty"` // Text says how
}

// Bounds of both.
const (
	maxRequest = 16 << 10
	maxAnswer  = 8 << 10
	maxText    = 1 << 10
)

// Run is fetchd: it reads a request, asks, and writes the answer.
func Run(ctx context.Context, _ *slog.Logger) error {
	if err := confine(maxMemory); err != nil {
		return err
	}
	return serve(ctx, New(nil, time.Now), os.Stdin, os.Stdout)
}

// maxMemory is the most that the process may have, in bytes: many times what the
// largest answer takes.
const maxMemory = 256 << 20

// confine gives up what is not needed, before anything from outside is read.
func confine(memory uint64) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	for limit, most := range map[int]uint64{
		unix.RLIMIT_CORE:   0,
		unix.RLIMIT_FSIZE:  0, // it writes no file
		unix.RLIMIT_NOFILE: 64,
		unix.RLIMIT_DATA:   memory,
	} {
		if err := unix.Setrlimit(limit, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return nil
}

func serve(ctx context.Context, client *Client, in io.Reader, out io.Writer) error {
	var r request
	if err := json.NewDecoder(io.LimitReader(in, maxRequest)).Decode(&r); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return errors.New("the request has no URL") // its text may hold a password
	}
	body, err := client.Get(ctx, u, r.Limit)
	a := answer{Size: len(body)}
	var status answerError
	switch {
	case errors.As(err, &status):
		a.Status, a.Text = status.status, status.text
	case err != nil:
		a.Failed, a.Text = true, printable(err.Error(), maxText)
	}
	head, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if _, err := out.Write(append(head, '\n')); err != nil {
		return err
	}
	_, err = out.Write(body)
	return err
}
