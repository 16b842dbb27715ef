package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"talos/internal/containers"
	"talos/internal/layout"
	"talos/internal/linux/caps"
	"talos/internal/loop"
)

// Run implements Runner.
func (c Container) Run(ctx context.Context, out io.Writer, started func(pid int)) error {
	spec, err := c.Spec(ctx)
	if err != nil {
		return err
	}
	conn, err := containers.Connect(c.Instance)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = containers.Namespaced(ctx, layout.SystemNamespace)
	pipe, err := openOutput(outputDir, spec.ID, out)
	if err != nil {
		return err
	}
	defer pipe.close()
	r := &containerRun{Container: c, spec: spec, conn: conn, pipe: pipe}
	task, err := r.takeOver(ctx)
	if err == nil && task == nil {
		task, err = r.create(ctx)
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", spec.ID, err)
	}
	pid, err := containers.ProcessID(c.Instance, task.Pid())
	if err == nil {
		started(pid)
		err = r.wait(ctx, task, pid)
	}
	if cleanErr := r.remove(ctx); cleanErr != nil && err == nil {
		err = fmt.Errorf("container %s: %w", spec.ID, cleanErr)
	}
	return err
}

// containerRun is one run of a container.
type containerRun struct {
	Container
	spec ContainerSpec
	conn *client.Client
	pipe *output
}

// takeOver returns the task that runs already, or nil after it has removed
// what a dead one left.
func (r *containerRun) takeOver(ctx context.Context) (client.Task, error) {
	ctr, err := r.conn.LoadContainer(ctx, r.spec.ID)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for one that runs: %w", err)
	}
	if task, err := ctr.Task(ctx, nil); err == nil {
		status, err := task.Status(ctx)
		if err == nil && status.Status == client.Running {
			return task, nil
		}
	}
	return nil, r.remove(ctx)
}

// create makes container and task and starts it.
func (r *containerRun) create(ctx context.Context) (client.Task, error) {
	have, err := nodeLimits()
	if err != nil {
		return nil, err
	}
	oci := ociSpec(r.spec, have)
	opts := []client.NewContainerOpts{
		client.WithRuntime("io.containerd.runc.v2", &options.Options{Root: r.runcRoot()}),
	}
	if r.spec.Image != "" {
		image, err := r.image(ctx)
		if err != nil {
			return nil, err
		}
		if err := useImage(ctx, oci, image); err != nil {
			return nil, err
		}
		snapshotter, err := containers.Snapshotter(ctx, r.conn)
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.WithImage(image), client.WithSnapshotter(snapshotter), client.WithNewSnapshot(r.spec.ID, image))
	}
	if len(oci.Process.Args) == 0 {
		return nil, errors.New("no program to run")
	}
	ctr, err := r.conn.NewContainer(ctx, r.spec.ID, append(opts, client.WithSpec(oci))...)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	task, err := ctr.NewTask(ctx, r.pipe.creator)
	if err == nil {
		err = task.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start: %w", err), r.remove(ctx))
	}
	return task, nil
}

// runcRoot keeps the two containerds apart where runc notes what it runs.
func (r *containerRun) runcRoot() string {
	if r.Instance == System {
		return "/system/run/runc"
	}
	return ""
}

// image returns the image, pulling it when it isn't there.
func (r *containerRun) image(ctx context.Context) (client.Image, error) {
	image, err := r.conn.GetImage(ctx, r.spec.Image)
	if err == nil {
		if unpacked, unpackErr := r.unpacked(ctx, image); unpackErr == nil && unpacked {
			return image, nil
		}
	} else if !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("look for image %s: %w", r.spec.Image, err)
	}
	SetReason(ctx, "pulling image "+r.spec.Image)
	return containers.Pull(ctx, r.conn, r.spec.Image)
}

func (r *containerRun) unpacked(ctx context.Context, image client.Image) (bool, error) {
	snapshotter, err := containers.Snapshotter(ctx, r.conn)
	if err != nil {
		return false, err
	}
	return image.IsUnpacked(ctx, snapshotter)
}

// useImage takes from the image what the spec leaves open.
func useImage(ctx context.Context, spec *specs.Spec, image client.Image) error {
	desc, err := image.Spec(ctx)
	if err != nil {
		return fmt.Errorf("read configuration of image %s: %w", image.Name(), err)
	}
	spec.Root.Path = "rootfs" // in the bundle, where containerd mounts the snapshot
	if len(spec.Process.Args) == 0 {
		spec.Process.Args = append(append([]string{}, desc.Config.Entrypoint...), desc.Config.Cmd...)
	}
	spec.Process.Env = append(append([]string{}, desc.Config.Env...), spec.Process.Env...)
	if desc.Config.WorkingDir != "" {
		spec.Process.Cwd = desc.Config.WorkingDir
	}
	return nil
}

// wait returns when the task has ended, however often containerd goes away
// meanwhile. The end of ctx ends the task.
func (r *containerRun) wait(ctx context.Context, task client.Task, pid int) error {
	calls := context.WithoutCancel(ctx)
	for {
		waitCtx, cancel := context.WithCancel(calls)
		exited, err := task.Wait(waitCtx)
		if err == nil {
			select {
			case status := <-exited:
				err = status.Error()
				if err == nil {
					cancel()
					return exitError(status.ExitCode())
				}
			case <-ctx.Done():
				cancel()
				return r.end(calls, task, pid)
			}
		}
		cancel()
		// containerd is away, or knows nothing of the task any more.
		if errdefs.IsNotFound(err) || !alive(pid) && gone(calls, r.conn, r.spec.ID) {
			return errors.New("ended while nobody watched")
		}
		if !loop.Sleep(ctx, 100*time.Millisecond) {
			return r.end(calls, task, pid)
		}
	}
}

func exitError(code uint32) error {
	if code == 0 {
		return nil
	}
	if code > 128 {
		return fmt.Errorf("exited with code %d (signal %d)", code, code-128)
	}
	return fmt.Errorf("exited with code %d", code)
}

// alive says whether a process is there; 0 is one that has ended.
func alive(pid int) bool { return pid > 0 && unix.Kill(pid, 0) == nil }

// gone says that containerd answers and does not run the task.
func gone(ctx context.Context, conn *client.Client, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ctr, err := conn.LoadContainer(ctx, id)
	if err != nil {
		return errdefs.IsNotFound(err)
	}
	task, err := ctr.Task(ctx, nil)
	if err != nil {
		return errdefs.IsNotFound(err)
	}
	status, err := task.Status(ctx)
	return err == nil && status.Status == client.Stopped
}

// end stops the task: gracefully through containerd, or, where that does not
// answer, by a signal to its first process.
func (r *containerRun) end(ctx context.Context, task client.Task, pid int) error {
	grace := r.Grace
	if grace <= 0 {
		grace = usualGrace
	}
	ctx, cancel := context.WithTimeout(ctx, grace+5*time.Second)
	defer cancel()
	err := containers.EndTask(ctx, task, grace)
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	if pid <= 0 {
		return err
	}
	if killErr := unix.Kill(pid, unix.SIGKILL); killErr != nil && !errors.Is(killErr, unix.ESRCH) {
		return errors.Join(err, killErr)
	}
	return fmt.Errorf("%w; killed process %d", err, pid)
}

// remove deletes task, container and snapshot, killing what still runs. What
// can't be deleted now is found again before the next start.
func (r *containerRun) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	ctr, err := r.conn.LoadContainer(ctx, r.spec.ID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	task, err := ctr.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, client.WithProcessKill)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove task: %w", err)
	}
	if err := ctr.Delete(ctx, client.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// nodeLimits finds out what may be given to containers.
func nodeLimits() (limits, error) {
	var l limits
	var err error
	if l.caps, err = cap.Current(); err != nil {
		return l, fmt.Errorf("read own capabilities: %w", err)
	}
	if l.resources, err = caps.Has(unix.CAP_SYS_RESOURCE); err != nil {
		return l, err
	}
	if l.oomScore, err = caps.OOMScore(1); err != nil {
		return l, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return l, fmt.Errorf("getrlimit RLIMIT_NOFILE: %w", err)
	}
	l.noFile = limit.Max
	return l, nil
}
