package volume

import (
	"context"
	"fmt"

	"talos/internal/gpt"
	"talos/internal/wipe"
)

// Wipe makes a partition hold nothing. It must not be mounted. STATE and META,
// which hold keys, are overwritten whole; of a larger one the device is told
// that nothing in it is needed, and the ends are overwritten. Any but META gets a
// new file system when it is mounted next.
func Wipe(ctx context.Context, label, device string) error {
	whole := label == wipe.State || label == wipe.Meta
	if err := blankOut(ctx, device, whole, label != wipe.Meta); err != nil {
		return fmt.Errorf("wipe %s: %w", label, err)
	}
	return nil
}

// WipeDisk makes a whole disk hold nothing, its partition table included, as
// Wipe does a large partition. Nothing of it may be mounted.
func WipeDisk(ctx context.Context, device string) error {
	d, err := gpt.Open(device, true)
	if err != nil {
		return fmt.Errorf("wipe disk %s: %w", device, err)
	}
	defer d.Close()
	if err := overwrite(ctx, d, false, false); err != nil {
		return fmt.Errorf("wipe disk %s: %w", device, err)
	}
	_ = d.Reread() // best effort: the next start sees that the partitions are gone
	return nil
}

func blankOut(ctx context.Context, device string, whole, mark bool) error {
	d, err := gpt.Open(device, true)
	if err != nil {
		return err
	}
	defer d.Close()
	return overwrite(ctx, d, whole, mark)
}

func overwrite(ctx context.Context, d *gpt.Disk, whole, mark bool) error {
	// First what says what is there: a wipe that is cut short has begun at the right end.
	const step = 64 << 20
	ends := [][2]int64{{0, min(headSize, d.Size())}, {max(0, d.Size()-headSize), min(headSize, d.Size())}}
	for _, r := range ends {
		if err := d.Zero(r[0], r[1]); err != nil {
			return err
		}
	}
	if err := d.Sync(); err != nil {
		return err
	}
	for at := int64(0); at < d.Size(); at += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(step, d.Size()-at)
		d.Discard(at, n)
		if whole {
			if err := d.Zero(at, n); err != nil {
				return err
			}
		}
	}
	for _, r := range ends { // what was discarded may read as anything
		if err := d.Zero(r[0], r[1]); err != nil {
			return err
		}
	}
	if mark {
		if err := MarkUnmade(d, 0, d.Size()); err != nil {
			return err
		}
	}
	return d.Sync()
}
