package cli

import (
	"fmt"
	"time"
)

// patience is how long something may take before the user is told about it.
const patience = time.Second

// Status shows what is being waited for. On a terminal it is one line that is
// overwritten; elsewhere every new text is a line of its own.
func (a *App) Status(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if text == a.status {
		return
	}
	a.status = text
	if Terminal(a.Err) {
		fmt.Fprintf(a.Err, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(a.Err, text)
}

// ClearStatus takes the line of Status away before data is printed.
func (a *App) ClearStatus() { a.clear() }

// clear takes the line of Status off the terminal.
func (a *App) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status != "" && Terminal(a.Err) {
		fmt.Fprint(a.Err, "\r\x1b[K")
	}
	a.status = ""
}

// Slow shows text if what follows takes longer than a second. Call the answer
// when it is over.
func (a *App) Slow(format string, args ...any) (done func()) {
	t := time.AfterFunc(patience, func() { a.Status(format, args...) })
	return func() {
		if !t.Stop() {
			a.clear()
		}
	}
}
