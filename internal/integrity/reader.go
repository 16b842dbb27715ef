package integrity

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// often is how often it is told how far a check is, which also keeps the
// caller's connection from looking dead.
const often = 2 * time.Second

// reader reads from the device itself, tells how far it is, and leaves nothing
// of it in memory: what runs on the node needs that more.
type reader struct {
	v     *verification
	ctx   context.Context // of the one run that made it
	f     *os.File
	done  int64
	total int64
	told  time.Time
}

// open makes a reader for a check that is going to read so many bytes.
func (v *verification) open(ctx context.Context, f *os.File, total int64) *reader {
	// Best effort, as below: what the kernel remembers need not be what the disk has.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return &reader{v: v, ctx: ctx, f: f, total: total, told: time.Now()}
}

// begin counts anew, for a check that is going to read so many bytes.
func (r *reader) begin(total int64) { r.done, r.total, r.told = 0, total, time.Now() }

// ReadAt implements io.ReaderAt.
func (r *reader) ReadAt(p []byte, at int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.f.ReadAt(p, at)
	_ = unix.Fadvise(int(r.f.Fd()), at, int64(n), unix.FADV_DONTNEED)
	if r.done += int64(n); time.Since(r.told) >= often {
		r.told = time.Now()
		if err := r.v.tell(Event{Check: r.v.name, Done: min(r.done, r.total), Total: r.total}); err != nil {
			return n, &tellError{err}
		}
	}
	return n, err
}

// size is that of a device or a file, which stat(2) does not tell of devices.
func size(f *os.File) (int64, error) {
	n, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", f.Name(), err)
	}
	return n, nil
}
