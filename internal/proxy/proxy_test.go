package proxy

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"talos/api/common"
	"talos/api/machine"
)

func TestStampList(t *testing.T) {
	for _, c := range []struct {
		name     string
		in, want *machine.VersionResponse
	}{
		{"one", &machine.VersionResponse{Messages: []*machine.Version{{Version: &machine.VersionInfo{Tag: "v1"}}}},
			&machine.VersionResponse{Messages: []*machine.Version{{Metadata: &common.Metadata{Hostname: "n"}, Version: &machine.VersionInfo{Tag: "v1"}}}}},
		{"several", &machine.VersionResponse{Messages: []*machine.Version{{}, {Metadata: &common.Metadata{Hostname: "other", Error: "kept"}}}},
			&machine.VersionResponse{Messages: []*machine.Version{{Metadata: &common.Metadata{Hostname: "n"}}, {Metadata: &common.Metadata{Hostname: "n", Error: "kept"}}}}},
		{"none", &machine.VersionResponse{},
			&machine.VersionResponse{Messages: []*machine.Version{{Metadata: &common.Metadata{Hostname: "n"}}}}},
	} {
		data, err := proto.Marshal(c.in)
		if err != nil {
			t.Fatal(err)
		}
		stamped, err := StampList(data, "n")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := &machine.VersionResponse{}
		if err := proto.Unmarshal(stamped, got); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: StampList (-want +got):\n%s", c.name, diff)
		}
	}
	if _, err := StampList([]byte{0x0a, 0xff}, "n"); err == nil {
		t.Error("a torn list is stamped")
	}
}

func TestFailure(t *testing.T) {
	var got machine.VersionResponse
	if err := proto.Unmarshal(listOf(failure("n", status.Error(codes.NotFound, "gone"))), &got); err != nil {
		t.Fatal(err)
	}
	md := got.GetMessages()[0].GetMetadata()
	if md.GetHostname() != "n" || md.GetError() != "gone" || codes.Code(md.GetStatus().GetCode()) != codes.NotFound || md.GetStatus().GetMessage() != "gone" {
		t.Errorf("metadata = %v", md)
	}
}

// FuzzStampList holds that a list a decoder takes before, it takes after, and
// that nothing but the host name changes.
func FuzzStampList(f *testing.F) {
	f.Add([]byte{}, "n")
	f.Add([]byte{0x0a, 0x02, 0x12, 0x00}, "node-1")
	f.Add([]byte{0x0a, 0x00, 0x10, 0x05}, "")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		var before, after machine.VersionResponse
		if proto.Unmarshal(data, &before) != nil || proto.Unmarshal(listOf(hostField(name)), &after) != nil {
			return // no list, or a name that is no text
		}
		proto.Reset(&after)
		stamped, err := StampList(data, name)
		if err != nil {
			t.Fatalf("StampList: %v", err)
		}
		if err := proto.Unmarshal(stamped, &after); err != nil {
			t.Fatalf("decode what was stamped: %v", err)
		}
		if len(before.GetMessages()) == 0 {
			before.Messages = []*machine.Version{{}}
		}
		for _, m := range before.GetMessages() {
			if m.Metadata == nil {
				m.Metadata = &common.Metadata{}
			}
			m.Metadata.Hostname = name
		}
		if diff := cmp.Diff(&before, &after, protocmp.Transform()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// FuzzMerge holds that what several nodes answered, and the error of one that
// did not, come out as one list: each node's items in order under its name, and
// nothing that one node sends shows under another's.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{}, []byte{}, "gone")
	f.Add([]byte{0x0a, 0x02, 0x12, 0x00}, []byte{0x0a, 0x00, 0x0a, 0x00}, "connection refused")
	f.Add([]byte{0x0a, 0x05, 0x0a, 0x03, 0x0a, 0x01, 'b'}, []byte{0x0a, 0x04, 0x0a, 0x02, 0x12, 0x00}, "")
	f.Fuzz(func(t *testing.T, a, b []byte, failure string) {
		answers := [][]byte{a, b}
		names := []string{"node-a", "node-b"}
		var all mem.BufferSlice
		var want []string
		for i, data := range answers {
			stamped, err := StampList(data, names[i])
			if err != nil {
				continue // one that sends no list has an error item
			}
			var list machine.VersionResponse
			if proto.Unmarshal(data, &list) != nil {
				return // a list in form, of things that are no answers: its own node's affair
			}
			all = append(all, mem.SliceBuffer(stamped))
			for range max(len(list.GetMessages()), 1) {
				want = append(want, names[i])
			}
		}
		all = append(all, failed("node-c", status.Error(codes.Unavailable, failure)))
		var merged machine.VersionResponse
		if err := proto.Unmarshal(all.Materialize(), &merged); err != nil {
			t.Fatalf("decode the merged list: %v", err)
		}
		var got []string
		for _, m := range merged.GetMessages() {
			got = append(got, m.GetMetadata().GetHostname())
		}
		if want = append(want, "node-c"); !slices.Equal(got, want) {
			t.Fatalf("items of %q, want %q", got, want)
		}
		last := merged.GetMessages()[len(got)-1].GetMetadata()
		if last.GetError() != strings.ToValidUTF8(failure, "\uFFFD") || codes.Code(last.GetStatus().GetCode()) != codes.Unavailable {
			t.Fatalf("item of the node that failed = %v", last)
		}
	})
}

// TestBothWays holds a conversation, each side waiting for the other, through
// a proxy.
func TestBothWays(t *testing.T) {
	dir := t.TempDir()
	echo := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		for {
			var m wrapperspb.StringValue
			if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
				return status.Error(codes.DataLoss, "done")
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(wrapperspb.String("re: " + m.GetValue())); err != nil {
				return err
			}
		}
	}))
	listen(t, echo, filepath.Join(dir, "echo"))
	backend, err := NewBackend("echo", filepath.Join(dir, "echo"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	between := grpc.NewServer(grpc.ForceServerCodecV2(Codec()), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		return Serve(stream, &Call{Method: method, Targets: []Target{{Server: backend}}, Metadata: Forwardable(stream.Context())})
	}))
	listen(t, between, filepath.Join(dir, "proxy"))
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, "proxy"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })

	stream, err := conn.NewStream(t.Context(), bidi, "/any.Service/Talk")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"a", "", "c"} {
		if err := stream.SendMsg(wrapperspb.String(word)); err != nil {
			t.Fatal(err)
		}
		var answer wrapperspb.StringValue
		if err := stream.RecvMsg(&answer); err != nil || answer.GetValue() != "re: "+word {
			t.Fatalf("answer to %q = %q, %v", word, answer.GetValue(), err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&wrapperspb.StringValue{}); status.Code(err) != codes.DataLoss {
		t.Errorf("the end = %v, want the server's status", err)
	}
}

func listen(t *testing.T, server *grpc.Server, socket string) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(server.Stop)
}
