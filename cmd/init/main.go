// Init is the first program of a machine, in its initramfs. It finds, verifies
// and enters the root, where machined goes on: see package initramfs.
//
// It never returns: what goes wrong is said on the console, and the machine
// starts again, which with a second slot means the one before.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"talos/internal/initramfs"
	"talos/internal/linux/kmsg"
	"talos/internal/power"
)

// timeToRead is how long the reason stays on the console.
const timeToRead = 10 * time.Second

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is the first process of a machine and nothing else")
		os.Exit(1)
	}
	err := run()
	// The console, and the kernel's log where it can be written.
	text := fmt.Sprintf("the machine can't start, it tries again in %v: %v\n", timeToRead, err)
	fmt.Fprint(os.Stderr, "init: ", text)
	if w, err := kmsg.Open("init: "); err == nil {
		fmt.Fprint(w, text)
	}
	time.Sleep(timeToRead)
	fmt.Fprintln(os.Stderr, "init:", power.Down(power.Reboot))
	select {} // reboot(2) may take its time
}

// run turns a panic into an error: the one way down.
func run() (err error) {
	defer func() {
		if p := recover(); p != nil { // any value, not only errors
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return initramfs.Run(context.Background(), slog.New(slog.NewTextHandler(output{}, nil)))
}

// output is the kernel's log, once /dev is there; it is on the console.
type output struct{}

func (output) Write(p []byte) (int, error) {
	w, err := kmsg.Open("init: ")
	if err != nil {
		return os.Stderr.Write(p)
	}
	return w.Write(p)
}
