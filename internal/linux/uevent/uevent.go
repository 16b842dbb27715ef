// Package uevent reads what the kernel says of devices that come, change and
// go: as messages on a netlink socket (Listen), and of those that are there
// already from sysfs (Coldplug).
//
// It owns the socket and the parsing, and knows nothing of what devices mean.
// Messages can be lost when nobody reads for long (ErrOverrun): whoever wants to
// know the whole then takes stock again. A Socket is read by one goroutine;
// Close may be called from any.
package uevent

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Action is what happened to a device.
type Action string

// The actions of the kernel.
const (
	Add     Action = "add"
	Remove  Action = "remove"
	Change  Action = "change"
	Move    Action = "move"
	Online  Action = "online"
	Offline Action = "offline"
	Bind    Action = "bind"
	Unbind  Action = "unbind"
)

// Event is one message.
type Event struct {
	Action    Action
	DevPath   string // in sysfs, such as "/devices/virtual/net/lo"
	Subsystem string // such as "block"
	Seqnum    uint64 // counts up with each message of the kernel, whose order may differ a little; 0 if it is not the kernel's
	Env       map[string]string
}

// Bounds of a message, twice the kernel's own (UEVENT_BUFFER_SIZE, UEVENT_NUM_ENVP).
const (
	maxMessage = 8 << 10
	maxVars    = 256
)

// ErrMalformed is what Parse says of bytes that are no message of the kernel.
var ErrMalformed = errors.New("malformed uevent")

// Parse reads a message: "action@devpath", then variables, each ended by a NUL.
func Parse(data []byte) (Event, error) {
	if len(data) > maxMessage {
		return Event{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(data))
	}
	head, rest, _ := bytes.Cut(data, []byte{0})
	action, path, ok := strings.Cut(string(head), "@")
	if !ok || action == "" || !strings.HasPrefix(path, "/") {
		return Event{}, fmt.Errorf("%w: no action and path", ErrMalformed)
	}
	e := Event{Action: Action(action), DevPath: path, Env: map[string]string{}}
	for len(rest) > 0 {
		var pair []byte
		pair, rest, _ = bytes.Cut(rest, []byte{0})
		key, value, ok := strings.Cut(string(pair), "=")
		if !ok || key == "" {
			return Event{}, fmt.Errorf("%w: %q is no variable", ErrMalformed, pair)
		}
		if e.Env[key] = value; len(e.Env) > maxVars {
			return Event{}, fmt.Errorf("%w: more than %d variables", ErrMalformed, maxVars)
		}
	}
	if e.Env["ACTION"] != action || e.Env["DEVPATH"] != path {
		return Event{}, fmt.Errorf("%w: head %q, but %s of %s", ErrMalformed, head, e.Env["ACTION"], e.Env["DEVPATH"])
	}
	e.Subsystem = e.Env["SUBSYSTEM"]
	if text := e.Env["SEQNUM"]; text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Event{}, fmt.Errorf("%w: number %q", ErrMalformed, text)
		}
		e.Seqnum = n
	}
	return e, nil
}
