package machine

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
)

// chunkSize bounds one message of a stream of bytes.
const chunkSize = 32 << 10

// maxFileCalls bounds the calls that look into file systems at one time. One
// whose server is dead holds a call, and with it a thread, for as long as it
// likes, and a Go program that has too many threads ends.
const maxFileCalls = 64

// enter admits a call that looks into file systems; leave ends it.
func (s *Server) enter() (leave func(), err error) {
	if s.fileCalls.Add(1) > maxFileCalls {
		s.fileCalls.Add(-1)
		return nil, status.Errorf(codes.ResourceExhausted, "%d calls read files already; some may hang in a dead file system", maxFileCalls)
	}
	return func() { s.fileCalls.Add(-1) }, nil
}

// Mounts reports what is mounted, each place once, with sizes in bytes.
func (s *Server) Mounts(context.Context, *emptypb.Empty) (*machine.MountsResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	out := &machine.Mounts{}
	for _, m := range mounts {
		stat := &machine.MountStat{Filesystem: m.Source, MountedOn: m.Mountpoint}
		var fs unix.Statfs_t
		if err := unix.Statfs(m.Mountpoint, &fs); err == nil { // a dead remote mount is still listed
			stat.Size = fs.Blocks * uint64(fs.Bsize)
			stat.Available = fs.Bavail * uint64(fs.Bsize)
		}
		out.Stats = append(out.Stats, stat)
	}
	return &machine.MountsResponse{Messages: []*machine.Mounts{out}}, nil
}

// Read streams one file.
func (s *Server) Read(req *machine.ReadRequest, stream grpc.ServerStreamingServer[common.Data]) error {
	if !filepath.IsAbs(req.GetPath()) {
		return status.Errorf(codes.InvalidArgument, "read %q: give an absolute path", req.GetPath())
	}
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	file, err := openRegular(req.GetPath())
	if errors.Is(err, errNotRegular) {
		return status.Error(codes.InvalidArgument, err.Error())
	} else if err != nil {
		return fileError(err)
	}
	defer file.Close()
	// Some files of the kernel's wait for more: closing ends such a read.
	stop := context.AfterFunc(stream.Context(), func() { file.Close() })
	defer stop()
	return sendBytes(file, stream)
}

var errNotRegular = errors.New("not a regular file")

// openRegular opens a regular file without waiting. It looks before it opens:
// opening a device can do things, such as start a watchdog; and it does not
// block, should it be a pipe that nobody writes to by then.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	now, err := file.Stat()
	if err == nil && !os.SameFile(info, now) {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("changed meanwhile")}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// fileError gives an error of the file system the code that a client can use.
func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, fs.ErrPermission):
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return err
}

// sendBytes streams all of r; the stream's context ends it.
func sendBytes(r io.Reader, stream grpc.ServerStreamingServer[common.Data]) error {
	for {
		buf := make([]byte, chunkSize) // a message that was sent must not change
		n, err := r.Read(buf)
		if n > 0 {
			if err := stream.Send(&common.Data{Bytes: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if stream.Context().Err() != nil {
				return stream.Context().Err()
			}
			return err
		}
	}
}

// Copy streams a folder or a file as a gzipped tar.
func (s *Server) Copy(req *machine.CopyRequest, stream grpc.ServerStreamingServer[common.Data]) error {
	root := filepath.Clean(req.GetRootPath())
	if !filepath.IsAbs(root) {
		return status.Errorf(codes.InvalidArgument, "copy %q: give an absolute path", req.GetRootPath())
	}
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	if _, err := os.Lstat(root); err != nil {
		return fileError(err)
	}
	reader, writer := io.Pipe()
	done := make(chan struct{})
	go func() { // owned by this call: done below
		defer close(done)
		writer.CloseWithError(archive(stream.Context(), root, writer))
	}()
	err = sendBytes(reader, stream)
	reader.CloseWithError(io.ErrClosedPipe)
	<-done
	return err
}

func archive(ctx context.Context, root string, w io.Writer) error {
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return archiveOne(out, root, path, entry)
	})
	return errors.Join(err, out.Close(), zip.Close())
}

// gone is the error of what went away after it was listed: a file, a process.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// archiveOne adds a file, a folder or a link; what went away meanwhile is left
// out, as are sockets, pipes and devices.
func archiveOne(out *tar.Writer, root, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	target := ""
	var file *os.File
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err = os.Readlink(path)
	case info.Mode().IsRegular():
		file, err = openRegular(path)
	case !info.IsDir():
		return nil
	}
	if gone(err) || errors.Is(err, errNotRegular) {
		return nil
	}
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	if header.Name, err = filepath.Rel(filepath.Dir(root), path); err != nil {
		return err
	}
	if err := out.WriteHeader(header); err != nil || file == nil {
		return err
	}
	// The header has promised a size: what the file has grown is left out, what
	// it has shrunk is filled up. Files of the kernel's promise what they like.
	n, err := io.Copy(out, io.LimitReader(file, header.Size))
	if err == nil && n < header.Size {
		_, err = io.CopyN(out, zeros{}, header.Size-n)
	}
	return err
}

// zeros is an endless reader of them.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// List streams what is in a folder.
func (s *Server) List(req *machine.ListRequest, stream grpc.ServerStreamingServer[machine.FileInfo]) error {
	root := filepath.Clean(req.GetRoot())
	if req.GetRoot() == "" {
		root = "/"
	}
	if !filepath.IsAbs(root) {
		return status.Errorf(codes.InvalidArgument, "list %q: give an absolute path", req.GetRoot())
	}
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	if _, err := os.Lstat(root); err != nil {
		return fileError(err)
	}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if stream.Context().Err() != nil {
			return stream.Context().Err()
		}
		rel, relErr := filepath.Rel(root, path)
		if relErr != nil {
			return relErr
		}
		item := &machine.FileInfo{Name: path, RelativeName: rel}
		if err != nil {
			item.Error = err.Error()
			return stream.Send(item)
		}
		if wanted(req.GetTypes(), entry) {
			fillFileInfo(item, path, entry)
			if err := stream.Send(item); err != nil {
				return err
			}
		}
		if entry.IsDir() && path != root && !descend(req, rel) {
			return fs.SkipDir
		}
		return nil
	})
}

// descend says whether the folder rel (not the root itself) is entered.
func descend(req *machine.ListRequest, rel string) bool {
	if !req.GetRecurse() {
		return false
	}
	depth := int32(strings.Count(rel, string(filepath.Separator))) + 1
	return req.GetRecursionDepth() <= 0 || depth < req.GetRecursionDepth()
}

func wanted(types []machine.ListRequest_Type, entry fs.DirEntry) bool {
	if len(types) == 0 {
		return true
	}
	for _, t := range types {
		switch t {
		case machine.ListRequest_REGULAR:
			if entry.Type().IsRegular() {
				return true
			}
		case machine.ListRequest_DIRECTORY:
			if entry.IsDir() {
				return true
			}
		case machine.ListRequest_SYMLINK:
			if entry.Type()&fs.ModeSymlink != 0 {
				return true
			}
		}
	}
	return false
}

func fillFileInfo(item *machine.FileInfo, path string, entry fs.DirEntry) {
	info, err := entry.Info()
	if err != nil {
		item.Error = err.Error()
		return
	}
	item.Size, item.Mode, item.Modified, item.IsDir = info.Size(), uint32(info.Mode()), info.ModTime().Unix(), info.IsDir()
	var stat unix.Stat_t
	if unix.Lstat(path, &stat) == nil {
		item.Uid, item.Gid = stat.Uid, stat.Gid
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if item.Link, err = os.Readlink(path); err != nil {
			item.Error = err.Error()
		}
	}
}

// DiskUsage streams how much each folder below the paths takes, in bytes.
func (s *Server) DiskUsage(req *machine.DiskUsageRequest, stream grpc.ServerStreamingServer[machine.DiskUsageInfo]) error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	for _, root := range req.GetPaths() {
		root = filepath.Clean(root)
		if !filepath.IsAbs(root) {
			return status.Errorf(codes.InvalidArgument, "usage of %q: give an absolute path", root)
		}
		if _, err := usage(stream, req, root, root, 0); err != nil {
			return err
		}
	}
	return nil
}

// usage sums path after its children, and sends what is asked for.
func usage(stream grpc.ServerStreamingServer[machine.DiskUsageInfo], req *machine.DiskUsageRequest, root, path string, depth int32) (int64, error) {
	if err := stream.Context().Err(); err != nil {
		return 0, err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return 0, err
	}
	item := &machine.DiskUsageInfo{Name: path, RelativeName: rel}
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		item.Error = err.Error()
		return 0, stream.Send(item)
	}
	item.Size = stat.Blocks * 512 // stat(2): units of 512 bytes
	isDir := stat.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir {
		entries, err := os.ReadDir(path)
		if err != nil {
			item.Error = err.Error()
		}
		for _, entry := range entries {
			size, err := usage(stream, req, root, filepath.Join(path, entry.Name()), depth+1)
			if err != nil {
				return 0, err
			}
			item.Size += size
		}
	}
	show := (isDir || req.GetAll() || depth == 0) && depth <= req.GetRecursionDepth() && overThreshold(item.Size, req.GetThreshold())
	if !show {
		return item.Size, nil
	}
	return item.Size, stream.Send(item)
}

// overThreshold: a positive threshold drops what is smaller, a negative one
// what is larger, as du's does.
func overThreshold(size, threshold int64) bool {
	if threshold < 0 {
		return size <= -threshold
	}
	return size >= threshold
}
