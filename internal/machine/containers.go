package machine

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/common"
	"talos/api/machine"
	"talos/internal/containers"
	"talos/internal/layout"
)

// restartGrace is what a container has between SIGTERM and SIGKILL.
const restartGrace = 10 * time.Second

// instances are the containerds that hold a namespace. The OS's own services
// live in both: the daemons in one, etcd and kubelet in the other.
func instances(namespace string) ([]containers.Instance, error) {
	switch namespace {
	case layout.SystemNamespace, "":
		return []containers.Instance{containers.System, containers.CRI}, nil
	case layout.KubeNamespace:
		return []containers.Instance{containers.CRI}, nil
	}
	return nil, status.Errorf(codes.InvalidArgument, "containers: no namespace %q, only %s and %s", namespace, layout.SystemNamespace, layout.KubeNamespace)
}

// list is what runs in a namespace. The second containerd starts late: while
// it is away, what the first has is still an answer.
func (s *Server) list(ctx context.Context, namespace string) ([]containers.Container, error) {
	from, err := instances(namespace)
	if err != nil {
		return nil, err
	}
	if namespace == "" {
		namespace = layout.SystemNamespace
	}
	var all []containers.Container
	var errs []error
	for _, instance := range from {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		some, err := s.Options.Containers.List(ctx, instance, namespace)
		cancel()
		all, errs = append(all, some...), append(errs, err)
	}
	if len(all) == 0 {
		if err := errors.Join(errs...); err != nil {
			return nil, status.Errorf(codes.Unavailable, "containers: %v", err)
		}
	}
	return all, nil
}

// Containers lists the containers of a namespace.
func (s *Server) Containers(ctx context.Context, req *machine.ContainersRequest) (*machine.ContainersResponse, error) {
	all, err := s.list(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	out := &machine.Container{}
	for _, c := range all {
		out.Containers = append(out.Containers, &machine.ContainerInfo{
			Namespace: c.Namespace, Id: c.DisplayName(), InternalId: c.ID, Uid: c.PodUID, Image: imageName(c), Pid: c.PID, Status: c.Status,
			PodId: podID(c), Name: c.Name,
		})
	}
	return &machine.ContainersResponse{Messages: []*machine.Container{out}}, nil
}

// imageName is the container's image; our own daemons run from the node's, and
// are shown as users know them.
func imageName(c containers.Container) string {
	if c.Image == "" {
		return "talos/" + c.ID
	}
	return c.Image
}

func podID(c containers.Container) string {
	if c.PodName == "" {
		return ""
	}
	return c.PodNamespace + "/" + c.PodName
}

// Stats reports what containers use: memory in bytes, CPU time in nanoseconds.
func (s *Server) Stats(ctx context.Context, req *machine.StatsRequest) (*machine.StatsResponse, error) {
	all, err := s.list(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	out := &machine.Stats{}
	for _, c := range all {
		if c.PID == 0 {
			continue
		}
		used, err := s.Options.Containers.Stats(ctx, c)
		if err != nil {
			continue // it ended meanwhile
		}
		out.Stats = append(out.Stats, &machine.Stat{
			Namespace: c.Namespace, Id: c.DisplayName(), MemoryUsage: used.MemoryBytes, CpuUsage: uint64(used.CPU), PodId: podID(c), Name: c.Name,
		})
	}
	return &machine.StatsResponse{Messages: []*machine.Stats{out}}, nil
}

// Restart ends a container; whoever owns it starts it again.
func (s *Server) Restart(ctx context.Context, req *machine.RestartRequest) (*machine.RestartResponse, error) {
	all, err := s.list(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.ID != req.GetId() && c.DisplayName() != req.GetId() {
			continue
		}
		if err := s.Options.Containers.Restart(ctx, c.Instance, c.Namespace, c.ID, restartGrace); err != nil {
			return nil, err
		}
		return &machine.RestartResponse{Messages: []*machine.Restart{{Metadata: &common.Metadata{}}}}, nil
	}
	return nil, status.Errorf(codes.NotFound, "restart: no container %q in namespace %s; see `talosctl containers`", req.GetId(), req.GetNamespace())
}
