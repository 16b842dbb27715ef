package console

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	// repaint is when everything is written again: the kernel's messages, or
	// somebody who opened the device too, may have written over it.
	repaint = 30 * time.Second
	// pace is the least time between two blocks on a serial port. A slow one
	// takes a second for a thousand characters.
	pace = 5 * time.Second
	// maxSerial bounds a line there, in characters.
	maxSerial = 400
)

// showScreen keeps a virtual terminal up to date until ctx ends.
func showScreen(ctx context.Context, path string, feed <-chan State) error {
	t, err := openTerminal(path, true)
	if err != nil {
		return err
	}
	defer t.close()
	p := &painter{terminal: t}
	defer p.leave()
	ticker := time.NewTicker(repaint)
	defer ticker.Stop()
	var state State
	for {
		select {
		case <-ctx.Done():
			return nil
		case state = <-feed:
		case <-ticker.C:
			p.forget()
		}
		if err := p.paint(state); err != nil {
			return err
		}
	}
}

// painter draws on a screen, in place. The upper part is the status; in the
// lower one the kernel's messages scroll, which the kernel writes itself: the
// last words of one that dies are not painted over.
type painter struct {
	*terminal
	cols, rows int
	shown      []string // by row; what was not written whole is unknown
}

// unknown is no line of a Screen.
const unknown = "\x00"

// messages is how many rows are the kernel's.
func messages(rows int) int { return min(max(rows/4, 3), 12) }

// paint writes the lines that differ from what stands there, each in one write
// with the cursor at the kernel's place before and after: a message of the
// kernel comes between two writes, never into one.
func (p *painter) paint(s State) error {
	cols, rows := p.size()
	top := rows - messages(rows)
	if top < 1 {
		return nil // there is room for the kernel's messages only
	}
	if cols != p.cols || rows != p.rows {
		p.cols, p.rows, p.shown = cols, rows, nil
		if _, err := p.write("\x1b[0m\x1b[?25l\x1b[2J"); err != nil {
			return err
		}
	}
	if len(p.shown) == 0 {
		p.shown = strings.Split(strings.Repeat(unknown+"\n", top-1)+unknown, "\n")
		if _, err := p.write(fmt.Sprintf("\x1b[%d;%dr\x1b[%d;1H", top+1, rows, rows)); err != nil {
			return err
		}
	}
	lines := Screen(s, cols, top)
	for i := range top {
		line := ""
		if i < len(lines) {
			line = lines[i]
		}
		if p.shown[i] == line {
			continue
		}
		text := line
		if i == 0 {
			text = "\x1b[7m" + line + "\x1b[0m"
		}
		text = fmt.Sprintf("\x1b[%d;1H\x1b[0m\x1b[2K%s\x1b[%d;1H", i+1, text, rows)
		n, err := p.write(text)
		if err != nil {
			return err
		}
		if n < len(text) { // it is stopped, or busy: the rest next time
			p.shown[i] = unknown
			return nil
		}
		p.shown[i] = line
	}
	return nil
}

// forget makes the next paint write everything.
func (p *painter) forget() { p.shown = nil }

// leave gives the screen back to the kernel. Nobody is told if that fails.
func (p *painter) leave() {
	_, _ = p.write(fmt.Sprintf("\x1b[r\x1b[%d;1H\x1b[?25h", p.rows))
}

// showLines tells a serial port what changes, until ctx ends.
func showLines(ctx context.Context, path string, feed <-chan State) error {
	t, err := openTerminal(path, false)
	if err != nil {
		return err
	}
	defer t.close()
	var told State
	for {
		var now State
		select {
		case <-ctx.Done():
			return nil
		case now = <-feed:
		}
		var block strings.Builder
		for _, line := range Report(told, now) {
			block.WriteString("talos: " + cut(line, maxSerial) + "\n")
		}
		if block.Len() == 0 {
			told = now
			continue
		}
		n, err := t.write(block.String())
		if err != nil {
			return err
		}
		if n > 0 { // what it did not take is lost, but for the whole
			told = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pace):
		}
	}
}
