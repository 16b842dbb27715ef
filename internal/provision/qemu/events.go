package qemu

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// maxEvents is how much of the newest events is read; a machine can make any
// number of them.
const maxEvents = 256 << 10

// Event is something that happened to a machine.
type Event struct {
	Time   time.Time
	Name   string // as QEMU calls it: SHUTDOWN, RESET, WATCHDOG, STOP, RESUME, …
	Reason string // of SHUTDOWN and RESET: guest-shutdown, guest-reset, host-signal, …; of WATCHDOG what it did
}

// Events are what happened since the machine was last turned on, oldest first.
// They stay when it is off.
func (v VM) Events() ([]Event, error) {
	f, err := os.Open(v.events())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxEvents {
		if _, err := f.Seek(-maxEvents, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxEvents))
	if err != nil {
		return nil, err
	}
	return parseEvents(data), nil
}

// parseEvents reads what is an event of lines, some of which may be torn.
func parseEvents(data []byte) []Event {
	var out []Event
	for line := range bytes.Lines(data) {
		m, err := parse(line)
		if err != nil || m.Event == "" {
			continue
		}
		var about struct{ Reason, Action string }
		_ = json.Unmarshal(m.Data, &about) // most events say nothing of the kind
		if about.Reason == "" {
			about.Reason = about.Action
		}
		at := time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*int64(time.Microsecond))
		out = append(out, Event{Time: at, Name: m.Event, Reason: about.Reason})
	}
	return out
}

// Power is "poweroff" when the machine turned itself off, and "" when it was
// ended, or was not. A restart of its own never ends it.
func (v VM) Power() string {
	events, err := v.Events()
	if err != nil {
		return ""
	}
	return asked(events)
}

func asked(events []Event) string {
	for _, e := range events {
		if e.Name == "SHUTDOWN" && e.Reason == "guest-shutdown" {
			return "poweroff"
		}
	}
	return ""
}

// ClearPower forgets how the machine ended. What happened to it before is kept
// beside, to be looked at.
func (v VM) ClearPower() error {
	if err := os.Rename(v.events(), v.events()+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
