package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
	"talos/internal/containers"
	"talos/internal/layout"
	"talos/internal/linux/kmsg"
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

// Dmesg streams the kernel's log (/dev/kmsg: Documentation/ABI/testing/dev-kmsg).
// tail skips what is there already.
func (s *Server) Dmesg(req *machine.DmesgRequest, stream grpc.ServerStreamingServer[common.Data]) error {
	file, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fileError(err)
	}
	defer file.Close()
	if req.GetTail() {
		if _, err := file.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("skip the kernel log: %w", err)
		}
	}
	started, err := kernelStart()
	if err != nil {
		return err
	}
	// os.File waits in the poller: closing it ends a blocked read.
	stop := context.AfterFunc(stream.Context(), func() { file.Close() })
	defer stop()
	buf := make([]byte, 8192) // a record is at most this long, and comes whole
	for {
		n, err := readKmsg(file, buf, req.GetFollow())
		switch {
		case errors.Is(err, syscall.EPIPE): // records were overwritten; the next read goes on behind them
			continue
		case errors.Is(err, syscall.EAGAIN):
			return nil
		case err != nil && stream.Context().Err() != nil:
			return status.FromContextError(stream.Context().Err()).Err()
		case err != nil:
			return fmt.Errorf("read the kernel log: %w", err)
		}
		line := string(buf[:n])
		if record, err := kmsg.Parse(line); err == nil {
			line = record.Format(started) + "\n"
		}
		if err := stream.Send(&common.Data{Bytes: []byte(line)}); err != nil {
			return err
		}
	}
}

// readKmsg reads one record; without follow it does not wait for one.
func readKmsg(file *os.File, buf []byte, follow bool) (n int, err error) {
	if follow {
		return file.Read(buf)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		n, readErr = unix.Read(int(fd), buf)
		return true // do not wait, whatever came
	})
	return n, errors.Join(err, readErr)
}

// kernelStart is when the kernel's clock was zero.
func kernelStart() (time.Time, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return time.Time{}, os.NewSyscallError("clock_gettime", err)
	}
	return time.Now().Add(-time.Duration(now.Nano())), nil
}

func hostname() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read host name: %w", err)
	}
	return name, nil
}
