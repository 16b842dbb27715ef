// Package sandbox keeps workloads apart from the operating system: Kubernetes's
// containerd, and with it kubelet, etcd and all pods, in a PID and a mount
// namespace of their own, where machined can't be seen and what only machined
// needs is not mounted.
//
// Run is the namespaces' first process, sandboxd; Sandbox is machined's side,
// which starts it and starts programs beside it.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
	"talos/internal/linux/mount"
	"talos/internal/linux/reap"
)

const (
	// systemDir is machined's own; workloads see what kept says.
	systemDir = "/system"
	// readyFD is where sandboxd says ready, or what went wrong.
	readyFD = 3
	ready   = "ready"
)

// kept are the folders below systemDir that containerd and what it runs need:
// settings, secrets of etcd and of the control plane's pods, and the pipes that
// services print to.
var kept = []string{layout.EtcDir, layout.SecretsDir, layout.OutputDir}

// Run is sandboxd: it makes the mount namespace what workloads may see, then
// collects orphans. It ends after SIGTERM when nobody else is there; with it
// ends everything in its namespace.
func Run(ctx context.Context, _ *slog.Logger) error {
	if os.Getpid() != 1 {
		return errors.New("this is the first process of a PID namespace and nothing else")
	}
	signal.Notify(make(chan os.Signal, 1)) // for nobody: pods can send them
	signal.Reset(unix.SIGURG)              // harmless, and the Go runtime's own
	reaper, err := reap.New()
	if err != nil {
		return err
	}
	defer reaper.Close()
	err = prepare(kept)
	said := ready
	if err != nil {
		said = err.Error()
	}
	out := os.NewFile(readyFD, "ready")
	_, writeErr := io.WriteString(out, said)
	if err := errors.Join(err, writeErr, out.Close()); err != nil {
		return err
	}
	<-ctx.Done()
	for !errors.Is(unix.Kill(-1, 0), unix.ESRCH) { // all of this namespace
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// prepare changes the mount namespace of this process, which was a copy of
// machined's. What machined mounts later appears; nothing goes the other way.
func prepare(keep []string) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("take mounts apart from machined's: %w", err)
	}
	proc := mount.Point{Source: "proc", Target: "/proc", Type: "proc", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}
	// Machined's is not just covered: below it is the way to machined's root.
	if err := errors.Join(mount.Detach(proc.Target), proc.Mount()); err != nil {
		return err
	}
	if err := hide(systemDir, keep); err != nil {
		return err
	}
	// The kubelet's mounts must show in pods, and those of volume plugins in the kubelet.
	return mount.Share("/")
}

// hide takes away everything below dir but the folders keep. It is unmounted,
// not covered: who may unmount finds nothing below.
func hide(dir string, keep []string) error {
	trees := make([]int, len(keep))
	for i, path := range keep {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return &os.PathError{Op: "open_tree", Path: path, Err: err}
		}
		defer unix.Close(fd)
		trees[i] = fd
	}
	if err := mount.Detach(dir); err != nil {
		return err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := (mount.Point{Source: "tmpfs", Target: dir, Type: "tmpfs", Flags: flags, Data: "mode=0755,size=64k"}).Mount(); err != nil {
		return err
	}
	for i, path := range keep {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if err := unix.MoveMount(trees[i], "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return &os.PathError{Op: "move_mount", Path: path, Err: err}
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""); err != nil {
		return &os.PathError{Op: "remount read-only", Path: dir, Err: err}
	}
	return nil
}
