package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/disk"
	"talos/internal/linux/mount"
)

// Volumes finds file systems by their labels. Its zero value looks at the
// machine's own disks.
type Volumes struct {
	// Devices lists the paths of what may hold a file system.
	Devices func() ([]string, error)
	// Mount mounts a device read-only and says where; done takes it away again.
	Mount func(device, kind string) (dir string, done func() error, err error)
}

// errNoVolume is that no volume has the label that was looked for.
var errNoVolume = errors.New("there is no such volume")

// File is a file of a volume.
type File struct {
	Name     string
	Limit    int // of its size
	Optional bool
}

// Read reads files of the volume that has the label, in whatever case; what is
// optional and not there is not in the result. Several that hold the same are one:
// a stick shows as a disk and as its partition. Several that differ are an error,
// for whoever plugs in another must not have the say because of a name.
func (v *Volumes) Read(ctx context.Context, label string, files ...File) (map[string][]byte, error) {
	devices := v.Devices
	if devices == nil {
		devices = blockDevices
	}
	paths, err := devices()
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var disks []disk.Disk
	for _, path := range paths {
		disks = append(disks, disk.Disk{DevPath: path})
	}
	// Side by side: one that is broken must not keep the others from being read.
	known := disk.Ask(ctx, disks, disk.Patience, func(d disk.Disk) ([2]string, error) {
		kind, label := identify(d.DevPath)
		return [2]string{kind, label}, nil
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found map[string][]byte
	var on string
	failed := fmt.Errorf("volume %s: %w", label, errNoVolume)
	for i, path := range paths {
		kind := known[i].Value[0]
		if kind == "" || !strings.EqualFold(known[i].Value[1], label) {
			continue
		}
		content, err := v.read(path, kind, files)
		switch {
		case err != nil && errors.Is(failed, errNoVolume): // the first counts, if no other is any good
			failed = fmt.Errorf("volume %s (%s): %w", label, path, err)
		case err != nil:
		case on == "":
			found, on = content, path
		case !reflect.DeepEqual(content, found):
			return nil, fmt.Errorf("volume %s: %s and %s are both called so, and hold different things: take one of them out", label, on, path)
		}
	}
	if on == "" {
		return nil, failed
	}
	return found, nil
}

// read mounts a volume for as long as it takes.
func (v *Volumes) read(path, kind string, files []File) (content map[string][]byte, err error) {
	mountAt := v.Mount
	if mountAt == nil {
		mountAt = mountVolume
	}
	dir, done, err := mountAt(path, kind)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	content = map[string][]byte{}
	for _, f := range files {
		data, err := readFile(root, f.Name, f.Limit)
		if f.Optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		content[f.Name] = data
	}
	return content, nil
}

// identify tells kind and label of the file system on a device. One that can't
// be read holds none.
func identify(path string) (kind, label string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // else a drive waits for a medium
	if err != nil {
		return "", ""
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", ""
	}
	v, _ := disk.Medium(f, uint64(size))
	return v.Kind, v.Label
}

// readFile reads a file of a volume, which must not be longer than limit. Links
// do not lead out of the volume.
func readFile(root *os.Root, name string, limit int) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a file")})
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("longer than %d bytes", limit)}
	}
	return data, err
}

// blockDevices lists the machine's disks and partitions, but for those that
// are memory or parts of others.
func blockDevices() ([]string, error) {
	entries, err := os.ReadDir("/sys/class/block")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if slices.ContainsFunc([]string{"loop", "ram", "zram", "dm-", "md"}, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		out = append(out, filepath.Join("/dev", strings.ReplaceAll(name, "!", "/")))
	}
	return out, nil
}

// mountVolume mounts a volume that nobody trusts.
func mountVolume(device, kind string) (string, func() error, error) {
	dir, err := os.MkdirTemp("/run", "volume-")
	if err != nil {
		return "", nil, err
	}
	p := mount.Point{
		Source: device, Target: dir, Type: kind, Flags: unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME,
	}
	if err := p.Mount(); err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	return dir, func() error {
		if err := unix.Unmount(dir, 0); err != nil {
			return &fs.PathError{Op: "unmount", Path: dir, Err: err}
		}
		return os.Remove(dir)
	}, nil
}
