package proxy

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// MaxMessage bounds a message in either direction, in bytes.
const MaxMessage = 32 << 20

// frame is one message that nobody decodes. It owns a reference to its
// buffers until free.
type frame struct{ data mem.BufferSlice }

func (f *frame) free() {
	f.data.Free()
	f.data = nil
}

// append adds bytes at the end.
func (f *frame) append(data []byte) {
	f.data = append(f.data[:len(f.data):len(f.data)], mem.SliceBuffer(data))
}

// bytes returns the message in one piece, to be read until free.
func (f *frame) bytes() []byte {
	if len(f.data) == 1 {
		return f.data[0].ReadOnlyData()
	}
	return f.data.Materialize()
}

// Codec passes messages through as bytes. A server that proxies must be made
// with grpc.ForceServerCodecV2(proxy.Codec()).
func Codec() encoding.CodecV2 { return codec{} }

type codec struct{}

// Name is that of the codec whose bytes pass, since it shows on the wire.
func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("proxy: encode %T: only passed-through messages are known", v)
	}
	f.data.Ref() // gRPC frees what it is given
	return f.data, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("proxy: decode into %T: only passed-through messages are known", v)
	}
	data.Ref() // gRPC frees its own reference when this returns
	f.data = data
	return nil
}
