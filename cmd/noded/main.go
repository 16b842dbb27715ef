// Noded is the node's small daemons in one binary: networkd, timed, routerd,
// apid and trustd; sandboxd, which keeps workloads apart; and fetchd, which asks
// one server one question. It is the one whose name it was started by, or that
// its first argument names.
//
// It is kept apart from machined so that each daemon stays small, and what it
// imports is kept light for the same reason.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/apid"
	"talos/internal/fetch"
	"talos/internal/networkd"
	"talos/internal/routerd"
	"talos/internal/sandbox"
	"talos/internal/timed"
	"talos/internal/trustd"
)

// daemons are what the binary can be.
var daemons = map[string]func(context.Context, *slog.Logger) error{
	"apid":     apid.Run,
	"fetchd":   fetch.Run,
	"networkd": networkd.Run,
	"routerd":  routerd.Run,
	"sandboxd": sandbox.Run,
	"timed":    timed.Run,
	"trustd":   trustd.Run,
}

const (
	// memory is where the garbage collector starts to work hard; a daemon at
	// rest needs a tenth of it.
	memory = 64 << 20
	// processors at once. Calls hop between daemons; with more, each wakes
	// threads that look for work and take the next one its processor.
	processors = 1
	// settled is when start-up's garbage can go back to the kernel.
	settled = 5 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	name, err := run(ctx, os.Args)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (name string, err error) {
	name = filepath.Base(args[0])
	daemon, ok := daemons[name]
	if !ok && len(args) > 1 {
		name = args[1]
		daemon, ok = daemons[name]
	}
	if !ok {
		return "noded", fmt.Errorf("no daemon is called %q: there are %s", name, strings.Join(slices.Sorted(maps.Keys(daemons)), ", "))
	}
	frugal()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("daemon", name)
	return name, daemon(ctx, log)
}

// frugal bounds what the Go runtime takes. The environment has the last word
// where the runtime reads it.
func frugal() {
	// Huge pages make small heaps big. Without the call the daemon works too.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memory)
	}
	time.AfterFunc(settled, debug.FreeOSMemory)
}
