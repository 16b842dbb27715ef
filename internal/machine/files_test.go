package machine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/common"
	"talos/api/machine"
)

// sink is a server stream that keeps what is sent.
type sink[T any] struct {
	grpc.ServerStream
	ctx  context.Context
	sent []*T
}

func (s *sink[T]) Context() context.Context { return s.ctx }
func (s *sink[T]) Send(m *T) error          { s.sent = append(s.sent, m); return nil }

func newServer(t *testing.T) *Server {
	t.Helper()
	s, err := New(Options{Platform: "container"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tree makes a folder with a file, a link and a folder in it.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := errors.Join(
		os.WriteFile(filepath.Join(root, "file"), bytes.Repeat([]byte("x"), 100_000), 0o640),
		os.Symlink("file", filepath.Join(root, "link")),
		os.MkdirAll(filepath.Join(root, "dir", "deep"), 0o755),
		os.WriteFile(filepath.Join(root, "dir", "deep", "inner"), []byte("y"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestRead(t *testing.T) {
	s, root := newServer(t), tree(t)
	stream := &sink[common.Data]{ctx: t.Context()}
	if err := s.Read(&machine.ReadRequest{Path: filepath.Join(root, "file")}, stream); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, chunk := range stream.sent {
		total += len(chunk.GetBytes())
		if len(chunk.GetBytes()) > chunkSize {
			t.Errorf("a chunk of %d bytes, at most %d", len(chunk.GetBytes()), chunkSize)
		}
	}
	if total != 100_000 {
		t.Errorf("read %d bytes, want 100000", total)
	}
	for path, want := range map[string]codes.Code{
		"relative": codes.InvalidArgument, filepath.Join(root, "none"): codes.NotFound,
		root: codes.InvalidArgument, "/dev/zero": codes.InvalidArgument, "": codes.InvalidArgument,
	} {
		if got := status.Code(s.Read(&machine.ReadRequest{Path: path}, &sink[common.Data]{ctx: t.Context()})); got != want {
			t.Errorf("Read(%q) = %v, want %v", path, got, want)
		}
	}
}

// TestReadNeverWaits: neither for somebody who writes to a pipe nor for more.
func TestReadNeverWaits(t *testing.T) {
	s, pipe := newServer(t), filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Read(&machine.ReadRequest{Path: pipe}, &sink[common.Data]{ctx: t.Context()}) }()
	select {
	case err := <-done:
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("Read of a pipe = %v, want InvalidArgument", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Read of a pipe waits for a writer")
	}
}

func TestFileCallsAreBounded(t *testing.T) {
	s, root := newServer(t), t.TempDir()
	s.fileCalls.Store(maxFileCalls) // hanging
	_, mounts := s.Mounts(t.Context(), nil)
	for name, err := range map[string]error{
		"Mounts":    mounts,
		"Read":      s.Read(&machine.ReadRequest{Path: "/etc/passwd"}, &sink[common.Data]{ctx: t.Context()}),
		"Copy":      s.Copy(&machine.CopyRequest{RootPath: root}, &sink[common.Data]{ctx: t.Context()}),
		"List":      s.List(&machine.ListRequest{Root: root}, &sink[machine.FileInfo]{ctx: t.Context()}),
		"DiskUsage": s.DiskUsage(&machine.DiskUsageRequest{Paths: []string{root}}, &sink[machine.DiskUsageInfo]{ctx: t.Context()}),
	} {
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s beyond the bound = %v, want ResourceExhausted", name, err)
		}
	}
	s.fileCalls.Add(-1)
	if _, err := s.Mounts(t.Context(), nil); err != nil {
		t.Errorf("Mounts within the bound = %v", err)
	}
	if got := s.fileCalls.Load(); got != maxFileCalls-1 {
		t.Errorf("%d calls counted after all have ended, want %d", got, maxFileCalls-1)
	}
}

// TestCopyOfWhatChanges: files shrink and vanish between listing and reading.
func TestCopyOfWhatChanges(t *testing.T) {
	root := tree(t)
	var archive bytes.Buffer
	out := tar.NewWriter(&archive)
	for _, change := range []struct {
		name string
		do   func(path string) error
	}{
		{"file", func(path string) error { return os.Truncate(path, 10) }},
		{"dir/deep/inner", os.Remove},
		{"link", os.Remove},
	} {
		path := filepath.Join(root, change.name)
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := change.do(path); err != nil {
			t.Fatal(err)
		}
		if err := archiveOne(out, root, path, fs.FileInfoToDirEntry(info)); err != nil {
			t.Errorf("%s: %v", change.name, err)
		}
	}
	if err := out.Close(); err != nil {
		t.Errorf("the archive is not whole: %v", err)
	}
	in := tar.NewReader(&archive)
	if header, err := in.Next(); err != nil || header.Size != 100_000 {
		t.Errorf("first entry = %+v, %v, want the shrunk file with the size it was listed with", header, err)
	}
	if _, err := in.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after it: %v, want the end", err)
	}
}

func TestList(t *testing.T) {
	s, root := newServer(t), tree(t)
	for _, c := range []struct {
		name string
		req  *machine.ListRequest
		want []string
	}{
		{"flat", &machine.ListRequest{Root: root}, []string{".", "dir", "file", "link"}},
		{"recursive", &machine.ListRequest{Root: root, Recurse: true}, []string{".", "dir", "dir/deep", "dir/deep/inner", "file", "link"}},
		{"two deep", &machine.ListRequest{Root: root, Recurse: true, RecursionDepth: 2}, []string{".", "dir", "dir/deep", "file", "link"}},
		{"folders", &machine.ListRequest{Root: root, Recurse: true, Types: []machine.ListRequest_Type{machine.ListRequest_DIRECTORY}}, []string{".", "dir", "dir/deep"}},
		{"links", &machine.ListRequest{Root: root, Types: []machine.ListRequest_Type{machine.ListRequest_SYMLINK}}, []string{"link"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stream := &sink[machine.FileInfo]{ctx: t.Context()}
			if err := s.List(c.req, stream); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, item := range stream.sent {
				got = append(got, item.GetRelativeName())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("List = %v, want %v", got, c.want)
			}
		})
	}
}

func TestCopy(t *testing.T) {
	s, root := newServer(t), tree(t)
	stream := &sink[common.Data]{ctx: t.Context()}
	if err := s.Copy(&machine.CopyRequest{RootPath: filepath.Join(root, "dir")}, stream); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	for _, chunk := range stream.sent {
		archive.Write(chunk.GetBytes())
	}
	zip, err := gzip.NewReader(&archive)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for reader := tar.NewReader(zip); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if want := []string{"dir", "dir/deep", "dir/deep/inner"}; !slices.Equal(names, want) {
		t.Errorf("archive holds %v, want %v", names, want)
	}
}

// TestCopyEndsWithItsCaller: an archive nobody reads must not go on.
func TestCopyEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newServer(t).Copy(&machine.CopyRequest{RootPath: tree(t)}, &sink[common.Data]{ctx: ctx}); err == nil {
		t.Error("Copy for a caller that has gone = nil, want an error")
	}
}

func TestDiskUsage(t *testing.T) {
	s, root := newServer(t), tree(t)
	stream := &sink[machine.DiskUsageInfo]{ctx: t.Context()}
	if err := s.DiskUsage(&machine.DiskUsageRequest{Paths: []string{root}, RecursionDepth: 1}, stream); err != nil {
		t.Fatal(err)
	}
	last := stream.sent[len(stream.sent)-1]
	if last.GetRelativeName() != "." || last.GetSize() < 100_000 {
		t.Errorf("the root's line is %v, want . with at least 100000 bytes", last)
	}
	var names []string
	for _, item := range stream.sent {
		names = append(names, item.GetRelativeName())
	}
	if want := []string{"dir", "."}; !slices.Equal(names, want) {
		t.Errorf("lines for %v, want %v: folders one deep, children first", names, want)
	}
}

// TestProcfs: every report of the kernel's own files says something.
func TestProcfs(t *testing.T) {
	s := newServer(t)
	none := &emptypb.Empty{}
	memory, err := s.Memory(t.Context(), none)
	if err != nil || memory.GetMessages()[0].GetMeminfo().GetMemtotal() == 0 {
		t.Errorf("Memory = %v, %v; want a total", memory, err)
	}
	load, err := s.LoadAvg(t.Context(), none)
	if err != nil || len(load.GetMessages()) != 1 {
		t.Errorf("LoadAvg = %v, %v", load, err)
	}
	stat, err := s.SystemStat(t.Context(), none)
	if err != nil || len(stat.GetMessages()[0].GetCpu()) == 0 || stat.GetMessages()[0].GetBootTime() == 0 {
		t.Errorf("SystemStat has no processors or no boot time: %v", err)
	}
	cpus, err := s.CPUInfo(t.Context(), none)
	if err != nil || len(cpus.GetMessages()[0].GetCpuInfo()) == 0 {
		t.Errorf("CPUInfo = %v, %v", cpus, err)
	}
	disks, err := s.DiskStats(t.Context(), none)
	if err != nil || disks.GetMessages()[0].GetTotal() == nil {
		t.Errorf("DiskStats = %v, %v", disks, err)
	}
	net, err := s.NetworkDeviceStats(t.Context(), none)
	if err != nil || len(net.GetMessages()[0].GetDevices()) == 0 {
		t.Errorf("NetworkDeviceStats = %v, %v", net, err)
	}
	processes, err := s.Processes(t.Context(), none)
	if err != nil {
		t.Fatal(err)
	}
	self := slices.ContainsFunc(processes.GetMessages()[0].GetProcesses(), func(p *machine.ProcessInfo) bool { return int(p.GetPid()) == os.Getpid() })
	if !self {
		t.Error("Processes does not list this test")
	}
}
