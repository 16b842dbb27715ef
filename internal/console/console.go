// Package console shows on the machine's own consoles what it is, where it is
// reached, what it does and what is wrong: a status screen on the screen, lines
// on serial ports. There is nothing to log in to, and nothing typed there is
// read.
//
// It reads the store and logs and writes to terminals; it changes nothing else.
// What stands there (Screen, Report) are pure functions of a State. Nobody waits
// for a terminal: a slow or stopped one misses lines. Run owns its goroutines.
package console

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/logs"
	"talos/internal/loop"
	"talos/internal/service"
)

// Options are what Run needs, and what tests bend.
type Options struct {
	State state.State
	Log   *slog.Logger
	Logs  *logs.Manager // of services; nil shows none
	// Services tells why a service is not healthy; may be nil.
	Services interface {
		Get(id string) (service.Status, error)
	}
	// Activity says what goes on now, in a line each, such as the plan and the
	// progress of an installation. It is asked every second, and may be nil.
	Activity func() []string

	// Active lists the kernel's consoles; empty means the kernel's file. Dev is
	// where they are: /dev.
	Active, Dev string
}

const (
	look     = time.Second // how often what is shown is looked at
	reopen   = time.Minute // between attempts to open a console that fails
	usedFile = "/sys/class/tty/console/active"
	// screenDevice is the virtual terminal that one sees after power-on.
	screenDevice = "tty1"
)

// Run shows the machine's state on its consoles until ctx ends.
func Run(ctx context.Context, o Options) error {
	if o.Active == "" {
		o.Active = usedFile
	}
	if o.Dev == "" {
		o.Dev = "/dev"
	}
	text, err := os.ReadFile(o.Active)
	if err != nil {
		return fmt.Errorf("list consoles: %w", err)
	}
	screen, serial := consoles(string(text))
	group, ctx := loop.NewGroup(ctx)
	g := newGatherer(o)
	group.Go(func() error { return g.follow(ctx) })
	var feeds []chan State
	show := func(name string, fn func(context.Context, <-chan State) error) {
		feed := make(chan State, 1)
		feeds = append(feeds, feed)
		group.Go(func() error { persist(ctx, o.Log.With("console", name), feed, fn); return nil })
	}
	if screen {
		path := filepath.Join(o.Dev, screenDevice)
		show(screenDevice, func(ctx context.Context, feed <-chan State) error { return showScreen(ctx, path, feed) })
	}
	for _, name := range serial {
		path := filepath.Join(o.Dev, name)
		show(name, func(ctx context.Context, feed <-chan State) error { return showLines(ctx, path, feed) })
	}
	group.Go(func() error { distribute(ctx, g, feeds); return nil })
	return group.Wait()
}

// consoles tells what there is: virtual terminals (tty0 is the one in front), and
// serial ports.
func consoles(active string) (screen bool, serial []string) {
	for name := range strings.FieldsSeq(active) {
		number := strings.TrimPrefix(name, "tty")
		switch {
		case strings.ContainsAny(name, "/."):
		case number != name && number != "" && strings.Trim(number, "0123456789") == "":
			screen = true
		default:
			serial = append(serial, name)
		}
	}
	return screen, serial
}

// distribute hands every console the newest state, when it has changed. One that
// has not taken the last finds the newest in its place.
func distribute(ctx context.Context, g *gatherer, feeds []chan State) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var last State
	for first := true; ; first = false {
		if now := g.state(); first || !reflect.DeepEqual(now, last) {
			last = now
			for _, feed := range feeds {
				select {
				case <-feed: // what it has not taken is old
				default:
				}
				feed <- now // we alone send
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// persist shows until ctx ends, also on a console that fails now and then. Why
// it fails is logged once: a serial port that the kernel was told of need not be
// there.
func persist(ctx context.Context, log *slog.Logger, feed <-chan State, show func(context.Context, <-chan State) error) {
	told := ""
	for {
		err := show(ctx, feed)
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != told {
			log.Info("console can't be written to", "err", err, "again in", reopen)
			told = text
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reopen):
		}
	}
}
