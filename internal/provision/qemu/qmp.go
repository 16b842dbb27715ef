package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	commandTime = 10 * time.Second // of one command
	maxLine     = 1 << 20          // of an answer
)

// monitor is one connection to QEMU's control socket (the QEMU Machine
// Protocol). QEMU serves one at a time; others wait.
type monitor struct {
	conn  net.Conn
	lines *bufio.Scanner
}

// message is one line from QEMU: a greeting, an answer or an event.
type message struct {
	QMP       json.RawMessage `json:"QMP"`
	Return    json.RawMessage `json:"return"`
	Error     *commandError   `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

type commandError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *commandError) Error() string { return e.Desc }

func parse(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("decode what qemu says: %w", err)
	}
	return m, nil
}

// dial connects, and makes QEMU ready for commands.
func (v VM) dial(ctx context.Context) (*monitor, error) {
	dir, err := unix.Open(v.run(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	// By way of the open folder, because the full path may be too long.
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), dir, controlSocket))
	if err != nil {
		return nil, fmt.Errorf("connect to the control socket of %s: %w", v.Name, errors.Unwrap(err))
	}
	m := &monitor{conn: conn, lines: bufio.NewScanner(conn)}
	m.lines.Buffer(nil, maxLine)
	stop := m.bound(ctx)
	defer stop()
	greeting, err := m.next()
	if err == nil && greeting.QMP == nil {
		err = errors.New("no greeting")
	}
	if err == nil {
		err = m.run("qmp_capabilities", nil, nil)
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("control %s: %w", v.Name, err)
	}
	return m, nil
}

func (m *monitor) close() { m.conn.Close() }

// bound ends the connection's use with ctx, and after commandTime.
func (m *monitor) bound(ctx context.Context) (stop func() bool) {
	m.conn.SetDeadline(time.Now().Add(commandTime))
	return context.AfterFunc(ctx, func() { m.conn.SetDeadline(time.Unix(1, 0)) })
}

func (m *monitor) next() (message, error) {
	if m.lines.Scan() {
		return parse(m.lines.Bytes())
	}
	if err := m.lines.Err(); err != nil {
		return message{}, err
	}
	return message{}, errors.New("qemu closed the connection")
}

// run runs a command and waits for its answer.
func (m *monitor) run(command string, arguments, into any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	if _, err := m.conn.Write(append(data, '\n')); err != nil {
		return err
	}
	for {
		answer, err := m.next()
		switch {
		case err != nil:
			return err
		case answer.Error != nil:
			return answer.Error
		case answer.Return != nil && into != nil:
			return json.Unmarshal(answer.Return, into)
		case answer.Return != nil:
			return nil
		} // else an event, which is in the file too
	}
}

// Command runs a command of the QEMU Machine Protocol on a machine that runs.
func (v VM) Command(ctx context.Context, command string, arguments, into any) error {
	if _, running := v.Running(); !running {
		return fmt.Errorf("%s: %s is off", command, v.Name)
	}
	m, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer m.close()
	stop := m.bound(ctx)
	defer stop()
	if err := m.run(command, arguments, into); err != nil {
		return fmt.Errorf("%s on %s: %w", command, v.Name, err)
	}
	return nil
}
