package install

import (
	"context"
	"fmt"

	"talos/internal/gpt"
)

// Execute does what the plan says on the disk that it names, if that is still
// as it was when the plan was made.
func Execute(ctx context.Context, p Plan, s *Source, o Options) error {
	d, err := gpt.Open(p.Disk.Path, true)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	defer d.Close()
	if err := unchanged(d, p); err != nil {
		return fmt.Errorf("install on %s: %w", p.Disk.Path, err)
	}
	if err := Write(ctx, d, s, o); err != nil {
		return fmt.Errorf("%s: %w", p.Disk.Path, err)
	}
	return nil
}

func unchanged(d *gpt.Disk, p Plan) error {
	if d.Size() != p.Disk.Size || d.SectorSize() != p.Disk.SectorSize {
		return fmt.Errorf("it has %d bytes in sectors of %d, and the plan is for %d in sectors of %d: another disk",
			d.Size(), d.SectorSize(), p.Disk.Size, p.Disk.SectorSize)
	}
	if p.Wipe {
		return nil
	}
	found, unfinished, err := inspect(d)
	if err != nil {
		return err
	}
	if len(found) > 0 && !unfinished {
		return fmt.Errorf("something was written to it since the plan was made: %s", contents(found))
	}
	return nil
}
