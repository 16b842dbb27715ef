package containers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"

	"talos/internal/linux/cgroup"
	"talos/internal/sandbox"
)

// Labels that containerd's CRI plugin and the kubelet set.
const (
	labelKind         = "io.cri-containerd.kind"
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodUID       = "io.kubernetes.pod.uid"
	labelContainer    = "io.kubernetes.container.name"
)

// List returns the containers of a namespace, sorted by what users see.
func (c *Client) List(ctx context.Context, i Instance, namespace string) ([]Container, error) {
	conn, err := c.Connection(i)
	if err != nil {
		return nil, err
	}
	ctx = Namespaced(ctx, namespace)
	found, err := conn.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers of %s in %s: %w", namespace, i, err)
	}
	running, err := conn.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list tasks of %s in %s: %w", namespace, i, err)
	}
	byID := make(map[string]*task.Process, len(running.Tasks))
	for _, t := range running.Tasks {
		byID[t.ID] = t
	}
	outer, err := translate(i)
	if err != nil {
		return nil, err
	}
	list := make([]Container, 0, len(found))
	for _, f := range found {
		info := Container{Instance: i, Namespace: namespace, ID: f.ID, Image: f.Image, Labels: f.Labels, SandboxID: f.SandboxID}
		info.describePod()
		if t := byID[f.ID]; t != nil {
			info.PID, info.Status = uint32(outer(int(t.Pid))), t.Status.String()
			if t.Status == task.Status_STOPPED {
				info.PID = 0
			}
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b Container) int {
		return strings.Compare(a.DisplayName()+"\x00"+a.ID, b.DisplayName()+"\x00"+b.ID)
	})
	return list, nil
}

// translate returns what turns process ids of an instance into machined's.
func translate(i Instance) (func(int) int, error) {
	if i != CRI {
		return func(pid int) int { return pid }, nil
	}
	outer, err := sandbox.Translate()
	if err != nil {
		return nil, fmt.Errorf("process ids of %s: %w", i, err)
	}
	return outer, nil
}

// ProcessID is what machined knows a process by that an instance reports; 0 has
// ended.
func ProcessID(i Instance, reported uint32) (int, error) {
	outer, err := translate(i)
	if err != nil {
		return 0, err
	}
	return outer(int(reported)), nil
}

func (c *Container) describePod() {
	c.PodName, c.PodNamespace = c.Labels[labelPodName], c.Labels[labelPodNamespace]
	c.PodUID, c.Name = c.Labels[labelPodUID], c.Labels[labelContainer]
	c.Sandbox = c.Labels[labelKind] == "sandbox"
	if c.Sandbox && c.SandboxID == "" {
		c.SandboxID = c.ID
	}
}

// Find returns the container that users mean by name: its id, a prefix of at
// least 8 characters of it, or its DisplayName. Of several with one name the
// running one is meant.
func (c *Client) Find(ctx context.Context, i Instance, namespace, name string) (Container, error) {
	list, err := c.List(ctx, i, namespace)
	if err != nil {
		return Container{}, err
	}
	return find(list, name)
}

func find(list []Container, name string) (Container, error) {
	var best *Container
	for n := range list {
		f := &list[n]
		if f.ID == name {
			return *f, nil
		}
		byPrefix := len(name) >= 8 && strings.HasPrefix(f.ID, name)
		if !byPrefix && f.DisplayName() != name {
			continue
		}
		if best == nil || (best.PID == 0 && f.PID != 0) {
			best = f
		}
	}
	if best == nil {
		return Container{}, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return *best, nil
}

// Stats is what a running container's control group uses; zero if it doesn't run.
func (c *Client) Stats(_ context.Context, ctr Container) (cgroup.Usage, error) {
	if ctr.PID == 0 {
		return cgroup.Usage{}, nil
	}
	tree, err := cgroup.Open(cgroup.Root)
	if err != nil {
		return cgroup.Usage{}, err
	}
	return tree.Usage(int(ctr.PID))
}

// Kill sends a signal to a container's first process, or to all of them.
func (c *Client) Kill(ctx context.Context, i Instance, namespace, id string, sig syscall.Signal, all bool) error {
	conn, err := c.Connection(i)
	if err != nil {
		return err
	}
	_, err = conn.TaskService().Kill(Namespaced(ctx, namespace), &tasks.KillRequest{ContainerID: id, Signal: uint32(sig), All: all})
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	if err != nil {
		return fmt.Errorf("signal %v to container %s of %s: %w", sig, id, namespace, err)
	}
	return nil
}

// Restart ends a container so that whoever looks after it starts it again: a
// SIGTERM, and a SIGKILL when it is still there after grace.
func (c *Client) Restart(ctx context.Context, i Instance, namespace, id string, grace time.Duration) error {
	conn, err := c.Connection(i)
	if err != nil {
		return err
	}
	ctx = Namespaced(ctx, namespace)
	t, err := loadTask(ctx, conn, id)
	if err != nil {
		return err
	}
	return EndTask(ctx, t, grace)
}

func loadTask(ctx context.Context, conn *client.Client, id string) (client.Task, error) {
	ctr, err := conn.LoadContainer(ctx, id)
	if err != nil {
		if errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
		}
		return nil, fmt.Errorf("load container %s: %w", id, err)
	}
	t, err := ctr.Task(ctx, nil)
	if err != nil {
		if errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("%w: %s does not run", ErrNotFound, id)
		}
		return nil, fmt.Errorf("load task %s: %w", id, err)
	}
	return t, nil
}

// EndTask ends a task: SIGTERM, up to grace for it to end, then SIGKILL to all
// of its processes. It returns when the task has ended or ctx has. What is
// left of the task is deleted by its owner.
func EndTask(ctx context.Context, t client.Task, grace time.Duration) error {
	exited, err := t.Wait(ctx)
	if err != nil {
		return fmt.Errorf("wait for task %s: %w", t.ID(), err)
	}
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, grace}, {syscall.SIGKILL, time.Minute}} {
		var opts []client.KillOpts
		if step.sig == syscall.SIGKILL {
			opts = append(opts, client.WithKillAll)
		}
		if err := t.Kill(ctx, step.sig, opts...); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("signal %v to task %s: %w", step.sig, t.ID(), err)
		}
		timer := time.NewTimer(step.wait)
		select {
		case st := <-exited:
			timer.Stop()
			return st.Error()
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return fmt.Errorf("task %s outlived SIGKILL", t.ID())
}
