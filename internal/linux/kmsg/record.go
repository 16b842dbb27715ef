package kmsg

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Names of priorities and facilities as in syslog(3), shortened as dmesg does.
var (
	priorities = [...]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
	facilities = [...]string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"}
)

// Record is one record of /dev/kmsg.
type Record struct {
	Facility, Priority string
	Sequence           uint64
	At                 time.Duration // since the kernel started
	Text               string
}

// Parse reads a record as the kernel gives it (Documentation/ABI/testing/dev-kmsg):
// "prefix,sequence,microseconds,flags[,…];text", then lines of key and value
// that begin with a blank and are left out.
func Parse(raw string) (Record, error) {
	head, text, ok := strings.Cut(raw, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return Record{}, fmt.Errorf("kernel log record %.40q has no head", raw)
	}
	prefix, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil {
		return Record{}, fmt.Errorf("kernel log record: priority %q is not a number", fields[0])
	}
	sequence, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return Record{}, fmt.Errorf("kernel log record: sequence %q is not a number", fields[1])
	}
	micros, err := strconv.ParseInt(fields[2], 10, 63)
	if err != nil {
		return Record{}, fmt.Errorf("kernel log record: time %q is not a number", fields[2])
	}
	line, _, _ := strings.Cut(text, "\n")
	facility := "unknown"
	if n := prefix >> 3; n < uint64(len(facilities)) {
		facility = facilities[n]
	}
	return Record{
		Facility: facility, Priority: priorities[prefix&7], Sequence: sequence,
		At: time.Duration(micros) * time.Microsecond, Text: line,
	}, nil
}

// Format shows the record with the wall clock's time, given when the kernel started.
func (r Record) Format(started time.Time) string {
	return fmt.Sprintf("%s: %7s: [%s]: %s", r.Facility, r.Priority, started.Add(r.At).UTC().Format(time.RFC3339Nano), r.Text)
}
