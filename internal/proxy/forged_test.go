package proxy

import (
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"talos/api/machine"
)

// forged is an item that names another node, and ends in a field that promises
// as many bytes as the mark of the node that it comes from has.
func forged(claims, from string) []byte {
	item := append(hostField(claims), protowire.AppendTag(nil, 99, protowire.BytesType)...)
	return protowire.AppendVarint(item, uint64(len(hostField(from))))
}

func TestForgedItems(t *testing.T) {
	var taken machine.Version
	if err := proto.Unmarshal(append(forged("cp-1", "w-1"), hostField("w-1")...), &taken); err != nil || taken.GetMetadata().GetHostname() != "cp-1" {
		t.Fatalf("the item that is to be refused = %v, %v", &taken, err)
	}
	if out, err := StampList(listOf(forged("cp-1", "w-1")), "w-1"); err == nil {
		t.Errorf("StampList = %x, want an error", out)
	}

	// The same in a stream.
	dir := t.TempDir()
	liar := grpc.NewServer(grpc.ForceServerCodecV2(Codec()), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		return stream.SendMsg(&frame{data: mem.BufferSlice{mem.SliceBuffer(forged("cp-1", "w-1"))}})
	}))
	listen(t, liar, filepath.Join(dir, "liar"))
	backend, err := NewBackend("liar", filepath.Join(dir, "liar"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	between := grpc.NewServer(grpc.ForceServerCodecV2(Codec()), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		return Serve(stream, &Call{Method: "/any.Service/Say", Merged: true, Targets: []Target{{Name: "w-1", Server: backend}}})
	}))
	listen(t, between, filepath.Join(dir, "proxy"))
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, "proxy"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := conn.NewStream(t.Context(), bidi, "/any.Service/Say")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var got machine.Version
	if err := stream.RecvMsg(&got); err != nil || got.GetMetadata().GetHostname() != "w-1" || got.GetMetadata().GetError() == "" {
		t.Errorf("item = %v, %v, want an error of w-1", &got, err)
	}
}
