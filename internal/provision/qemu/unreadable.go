package qemu

import (
	"context"
	"fmt"
	"strings"
)

// Sectors of a disk by which Mend is told from what the machine does: one that
// no partition table uses, and one that no disk has.
const (
	mendAt  = 40
	nowhere = 1 << 50
)

// unreadable is the disk behind a driver whose state changes when something is
// written. An error counts from the event that it belongs to until another one
// has an error, so in the second state there is one that is never met.
func (d Disk) unreadable(id string) string {
	rule := func(state int, more map[string]any) map[string]any {
		r := map[string]any{"event": "read_aio", "state": state, "errno": 5, "iotype": "read"}
		for k, v := range more {
			r[k] = v
		}
		return r
	}
	return object(map[string]any{
		"driver": "raw", "node-name": id, "discard": "unmap",
		"file": map[string]any{
			"driver": "blkdebug", "image": fileNode(d.Path, false),
			"inject-error": []any{rule(1, nil), rule(2, map[string]any{"sector": nowhere})},
			"set-state":    []any{map[string]any{"event": "write_aio", "state": 1, "new_state": 2}},
		},
	})
}

// Mend has a running machine's i-th disk, which was unreadable, answer from now on.
func (v VM) Mend(ctx context.Context, i int) error {
	device := fmt.Sprintf("device%d", i)
	if d := v.Disks[i].Driver; d == "" || d == Drivers[0] {
		device = "/machine/peripheral/" + device + "/virtio-backend" // which has the disk
	}
	var said string
	command := fmt.Sprintf(`qemu-io -d %s "write -P 0 %d 512"`, device, mendAt*512)
	if err := v.Command(ctx, "human-monitor-command", map[string]any{"command-line": command}, &said); err != nil {
		return err
	}
	if said != "" { // what it did goes to standard output
		return fmt.Errorf("have disk %d of %s answer again: %s", i, v.Name, strings.TrimSpace(said))
	}
	return nil
}
