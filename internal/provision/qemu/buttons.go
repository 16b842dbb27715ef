package qemu

import (
	"context"
	"time"
)

// lookTime bounds a question to a machine that may not answer.
const lookTime = time.Second

// PressPower presses the power button: what it does is the system's choice.
func (v VM) PressPower(ctx context.Context) error {
	return v.Command(ctx, "system_powerdown", nil, nil)
}

// PressReset presses the reset button: the machine starts anew, whatever it did.
func (v VM) PressReset(ctx context.Context) error { return v.Command(ctx, "system_reset", nil, nil) }

// PressNMI interrupts the processors in a way that cannot be masked; a kernel
// that is told so panics at it.
func (v VM) PressNMI(ctx context.Context) error { return v.Command(ctx, "inject-nmi", nil, nil) }

// PressKeys presses keys of the keyboard at once, such as ctrl, alt, delete.
func (v VM) PressKeys(ctx context.Context, keys ...string) error {
	var list []map[string]string
	for _, k := range keys {
		list = append(list, map[string]string{"type": "qcode", "data": k})
	}
	return v.Command(ctx, "send-key", map[string]any{"keys": list}, nil)
}

// Freeze stops the machine where it is; its clock goes on. Thaw lets it go on.
func (v VM) Freeze(ctx context.Context) error { return v.Command(ctx, "stop", nil, nil) }

// Thaw lets a frozen machine go on; for others it does nothing.
func (v VM) Thaw(ctx context.Context) error {
	if !v.Frozen(ctx) {
		return nil
	}
	return v.Command(ctx, "cont", nil, nil)
}

// Frozen reports whether the machine is stopped.
func (v VM) Frozen(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var status struct{ Status string }
	return v.Command(ctx, "query-status", nil, &status) == nil && status.Status == "paused"
}

// Screenshot writes what is on the machine's screen into a PPM file.
func (v VM) Screenshot(ctx context.Context, path string) error {
	return v.Command(ctx, "screendump", map[string]any{"filename": path}, nil)
}
