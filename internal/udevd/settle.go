package udevd

import (
	"context"
	"fmt"
	"time"

	"talos/internal/linux/uevent"
)

// poll is how often Settle looks whether there is anything left.
const poll = 10 * time.Millisecond

// Settle waits until all that the kernel has said by now is dealt with, and
// disks have been looked at. It can't know of devices that drivers are still
// looking for. A disk that hangs holds it until ctx ends; it is then named.
func (d *Daemon) Settle(ctx context.Context) error {
	number, err := uevent.Seqnum(d.tree)
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	timer := time.NewTicker(poll)
	defer timer.Stop()
	for quiet := 0; ; {
		left := d.left(number)
		switch {
		case left == "":
			return nil
		case left == unseen:
			// Messages about links of other network namespaces are counted but not
			// sent here: nothing to read twice in a row is all that can be asked.
			if quiet++; quiet > 2 {
				return nil
			}
		default:
			quiet = 0
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("settle: %s: %w", left, ctx.Err())
		case <-timer.C:
		}
	}
}

// Settled says whether there is nothing left to be dealt with now.
func (d *Daemon) Settled() bool {
	number, err := uevent.Seqnum(d.tree)
	left := d.left(number)
	return err == nil && (left == "" || left == unseen)
}

const unseen = "messages of the kernel that did not come"

// left says what is still to be done; empty is nothing.
func (d *Daemon) left(number uint64) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.cold:
		return "devices that were there at the start"
	case d.waiting > 0:
		return fmt.Sprintf("%d messages", d.waiting)
	case len(d.jobs) > 0:
		for _, j := range d.jobs {
			return fmt.Sprintf("disk %s is being looked at", j.dev.Name())
		}
	case !d.drained():
		return "messages of the kernel"
	case d.seen < number:
		return unseen
	}
	return ""
}
