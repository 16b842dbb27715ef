package metal

import (
	"context"
	"errors"
	"slices"
	"time"

	"talos/internal/cmdline"
	"talos/internal/volume"
)

// unknown is a machine that has found its system nowhere, and has disks that it
// may be on for all that is known of them.
type unknown struct {
	why error
	// look looks again, as volume.System does.
	look func(ctx context.Context) (found bool, err error)
}

// advice is what helps where a disk never answers.
const advice = "they are asked again until they answer; take out what is broken, or, if this machine is not installed on it, start it with the kernel argument " +
	cmdline.UnknownDisks + "=ignore"

// askAgain is after how long that is done.
const askAgain = 5 * time.Second

// later says whether an error of volume.System is one to wait about: not where
// who started the machine has vouched for its disks.
func (m *Machine) later(err error, line cmdline.Line) bool {
	if !errors.As(err, new(*volume.UnknownError)) {
		return false
	}
	ignore, wrong := line.IgnoreUnknownDisks()
	if wrong != nil {
		m.Log.Error("unknown disks are waited for", "err", wrong)
	}
	if ignore {
		m.Log.Warn("not waited for, as the kernel's command line says", "err", err)
	}
	return !ignore
}

// AwaitDisks returns when it is known of every disk whether the system is on it,
// and says whether it is on one: the machine came up as one that is not installed,
// and must start anew. Until then it is not taken for a blank one, which whoever
// comes first could take over, or its platform install again. A disk that is gone
// counts no more. say is told what is waited for, when that changes.
func (m *Machine) AwaitDisks(ctx context.Context, say func(why []string)) (found bool, err error) {
	if m.unknown == nil {
		return false, nil
	}
	err = m.unknown.why
	var told []string
	for {
		var u *volume.UnknownError
		switch {
		case errors.As(err, &u):
			if why := u.Why(); !slices.Equal(why, told) {
				told = why
				say(append(slices.Clone(told), advice))
			}
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil: // such as a second system disk: the next start tells, too
			return true, err
		default:
			return found, nil
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return false, ctx.Err()
		}
		found, err = m.unknown.look(ctx)
	}
}
