package timed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/beevik/ntp"
	"golang.org/x/sys/unix"

	"talos/internal/resources/timesync"
)

const queryTimeout = 3 * time.Second

// query asks one server once. Its name is resolved within ctx. The library
// panics on some answers (in v1.6.0 a poll exponent of -128): a hostile
// answer must be an error, whatever it does.
func query(ctx context.Context, server string) (_ *ntp.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("answer of %s: malformed: %v", server, p)
		}
	}()
	if server == "" || strings.HasPrefix(server, "/") {
		return nil, fmt.Errorf("%q is not an NTP server", server)
	}
	ctx, stop := context.WithTimeout(ctx, 2*queryTimeout)
	defer stop()
	answer, err := ntp.QueryWithOptions(server, ntp.QueryOptions{Timeout: queryTimeout, Dialer: func(_, remote string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", remote)
	}})
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", server, err)
	}
	if err := answer.Validate(); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", server, err)
	}
	if now := time.Now().Add(answer.ClockOffset); now.Before(earliest) || now.After(latest) {
		return nil, fmt.Errorf("answer of %s: the year %d is not believable", server, now.Year())
	}
	return answer, nil
}

// No honest server tells a time outside these.
var (
	earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// filter tells spikes: offsets far from those before. Several in a row are no
// spike but the truth.
type filter struct {
	mean   float64 // of the size of believed offsets, seconds
	seen   int
	spikes int
}

// spike says whether not to believe an offset. Distance is how far off the
// server itself may be.
func (f *filter) spike(offset, distance time.Duration) bool {
	size := offset.Abs().Seconds()
	limit := max(8*f.mean, distance.Seconds(), 0.128)
	if f.seen >= 4 && size > limit && f.spikes < 3 {
		f.spikes++
		return true
	}
	f.spikes = 0
	f.seen++
	f.mean += (size - f.mean) / float64(min(f.seen, 8))
	return false
}

// clock is the kernel's.
type clock interface {
	Adjtime(*unix.Timex) (state int, err error)
	Step(by time.Duration) error
}

type systemClock struct{}

func (systemClock) Adjtime(t *unix.Timex) (int, error) { return unix.Adjtimex(t) }

func (systemClock) Step(by time.Duration) error {
	ts := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// slewLimit is what is corrected gradually; the kernel takes up to half a second.
const slewLimit = 400 * time.Millisecond

// Bits of adjtimex(2).
const (
	adjOffset, adjMaxError, adjEstError, adjStatus, adjTimeConst, adjNano = 0x1, 0x4, 0x8, 0x10, 0x20, 0x2000

	staPLL, staIns, staDel, staUnsync = 0x1, 0x10, 0x20, 0x40

	timeConst = 7 // about two minutes to correct
)

// adjust corrects the clock by an answer: slowly when it is nearly right, else at once.
func adjust(c clock, answer *ntp.Response) (stepped bool, err error) {
	offset := answer.ClockOffset
	if offset.Abs() >= slewLimit {
		if err := c.Step(offset); err != nil {
			return false, fmt.Errorf("step the clock by %v: %w", offset, err)
		}
		stepped, offset = true, 0
	}
	t := unix.Timex{Modes: adjOffset | adjMaxError | adjEstError | adjStatus | adjTimeConst | adjNano, Status: staPLL, Constant: timeConst}
	setWord(&t.Offset, int64(offset))
	setWord(&t.Maxerror, answer.RootDistance.Microseconds())
	setWord(&t.Esterror, answer.RTT.Microseconds()/2)
	switch answer.Leap {
	case ntp.LeapAddSecond:
		t.Status |= staIns
	case ntp.LeapDelSecond:
		t.Status |= staDel
	}
	if _, err := c.Adjtime(&t); err != nil {
		return stepped, fmt.Errorf("adjust the clock by %v: %w", offset, err)
	}
	return stepped, nil
}

// setWord sets a field that is as wide as the machine's word.
func setWord[T ~int32 | ~int64](field *T, v int64) { *field = T(v) }

var clockStates = []string{"TIME_OK", "TIME_INS", "TIME_DEL", "TIME_OOP", "TIME_WAIT", "TIME_ERROR"}

// readAdjtime reads the kernel's discipline, which needs no right.
func readAdjtime(c clock) (timesync.AdjtimeStatusSpec, error) {
	var t unix.Timex
	state, err := c.Adjtime(&t)
	if err != nil {
		return timesync.AdjtimeStatusSpec{}, fmt.Errorf("read the clock's discipline: %w", err)
	}
	if state < 0 || state >= len(clockStates) {
		return timesync.AdjtimeStatusSpec{}, errors.New("read the clock's discipline: unknown state")
	}
	unit := time.Microsecond
	if t.Status&adjNano != 0 { // STA_NANO has the same bit
		unit = time.Nanosecond
	}
	return timesync.AdjtimeStatusSpec{
		Offset:                   time.Duration(t.Offset) * unit,
		FrequencyAdjustmentRatio: 1 + float64(t.Freq)/65536e6,
		MaxError:                 time.Duration(t.Maxerror) * time.Microsecond,
		EstError:                 time.Duration(t.Esterror) * time.Microsecond,
		Status:                   statusText(t.Status),
		Constant:                 int(t.Constant),
		SyncStatus:               t.Status&staUnsync == 0,
		State:                    clockStates[state],
	}, nil
}

var statusBits = []string{
	"STA_PLL", "STA_PPSFREQ", "STA_PPSTIME", "STA_FLL", "STA_INS", "STA_DEL", "STA_UNSYNC", "STA_FREQHOLD",
	"STA_PPSSIGNAL", "STA_PPSJITTER", "STA_PPSWANDER", "STA_PPSERROR", "STA_CLOCKERR", "STA_NANO", "STA_MODE", "STA_CLK",
}

func statusText(bits int32) string {
	var names []string
	for i, name := range statusBits {
		if bits&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " | ")
}
