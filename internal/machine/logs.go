package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/internal/bootlog"
	"talos/internal/cmdline/redact"
	"talos/internal/containers"
	"talos/internal/layout"
	"talos/internal/linux/kmsg"
	"talos/internal/logs"
)

// Logs streams what a service or a container of Kubernetes printed.
func (s *Server) Logs(req *machine.LogsRequest, stream grpc.ServerStreamingServer[common.Data]) error {
	reader, err := s.openLog(stream.Context(), req)
	if err != nil {
		return err
	}
	defer reader.Close()
	return sendBytes(reader, stream)
}

func (s *Server) openLog(ctx context.Context, req *machine.LogsRequest) (io.ReadCloser, error) {
	tail := int(req.GetTailLines())
	if req.GetBoot() != 0 {
		if req.GetNamespace() == layout.KubeNamespace {
			return nil, status.Error(codes.InvalidArgument, "logs: only those of the node's services are kept over boots")
		}
		return s.pastLog(ctx, int(req.GetBoot()), req.GetId(), req.GetFollow(), tail)
	}
	if err := s.ownBoot(req.GetNamespace() == layout.KubeNamespace); err != nil {
		return nil, err
	}
	if req.GetNamespace() != layout.KubeNamespace {
		reader, err := s.Options.Logs.Reader(ctx, req.GetId(), req.GetFollow(), tail)
		if errors.Is(err, os.ErrNotExist) {
			return nil, status.Errorf(codes.NotFound, "logs: no service %q has printed anything; see `talosctl services`", req.GetId())
		}
		return reader, err
	}
	reader, err := s.Options.Containers.Logs(ctx, req.GetId(), req.GetFollow(), tail)
	if errors.Is(err, containers.ErrNotFound) {
		return nil, status.Errorf(codes.NotFound, "logs: no container %q in namespace %s; see `talosctl containers -k`", req.GetId(), layout.KubeNamespace)
	}
	return reader, err
}

// LogsContainers lists what Logs has.
func (s *Server) LogsContainers(context.Context, *emptypb.Empty) (*machine.LogsContainersResponse, error) {
	return &machine.LogsContainersResponse{Messages: []*machine.LogsContainer{{Ids: s.Options.Logs.IDs()}}}, nil
}

// Dmesg streams the kernel's log, of this boot or an earlier one.
func (s *Server) Dmesg(req *machine.DmesgRequest, stream grpc.ServerStreamingServer[common.Data]) error {
	if req.GetBoot() != 0 {
		reader, err := s.pastLog(stream.Context(), int(req.GetBoot()), bootlog.KernelLog, req.GetFollow() || req.GetTail(), -1)
		if err != nil {
			return err
		}
		defer reader.Close()
		return sendBytes(reader, stream)
	}
	err := kmsg.Lines(stream.Context(), req.GetFollow(), req.GetTail(), func(line string) error {
		return stream.Send(&common.Data{Bytes: []byte(redact.Text(line))}) // the kernel logs its command line
	})
	if ctx := stream.Context(); err != nil && ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return fileError(err)
}

// ownBoot refuses strangers more than what the node's services print from its
// start on: a machine in maintenance mode may have lost its configuration and
// kept what it had printed and run with it.
func (s *Server) ownBoot(more bool) error {
	if more && s.Config != nil && s.Config.Unconfigured() {
		return status.Error(codes.PermissionDenied, "logs: in maintenance mode only those of the node's services, of this boot")
	}
	return nil
}

// pastLog opens a log of an earlier boot. There is nothing to follow in it.
func (s *Server) pastLog(ctx context.Context, boot int, id string, follow bool, tail int) (io.ReadCloser, error) {
	switch {
	case boot > 0:
		return nil, status.Errorf(codes.InvalidArgument, "boot %d: earlier boots have negative numbers, -1 is the one before this", boot)
	case follow:
		return nil, status.Error(codes.InvalidArgument, "the log of an earlier boot has an end: it can't be followed")
	case s.ownBoot(true) != nil:
		return nil, s.ownBoot(true)
	case s.Options.Boots == nil:
		return nil, status.Error(codes.FailedPrecondition, "this node keeps no logs of earlier boots: nothing is mounted at "+layout.EphemeralDir)
	}
	dir, err := s.Options.Boots.Past(boot)
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	past, err := logs.Load(dir)
	if err != nil {
		return nil, fileError(err)
	}
	reader, err := past.Reader(ctx, id, false, tail)
	if errors.Is(err, os.ErrNotExist) {
		return nil, status.Errorf(codes.NotFound, "logs: boot %d has no log of %q, only of %q", boot, id, past.IDs())
	}
	return reader, err
}

func hostname() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read host name: %w", err)
	}
	return name, nil
}
