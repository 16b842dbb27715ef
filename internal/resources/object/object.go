// Package object holds what the resource types of every family share: how a
// spec is cloned, how a type makes itself known to the store, and the few
// value types whose YAML and protobuf forms need care.
//
// It knows no family and no store. Everything in it is safe for concurrent use.
package object

import (
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"sync"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/resource/meta"
	"github.com/cosi-project/runtime/pkg/resource/protobuf"
	"github.com/siderolabs/protoenc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Definition describes one resource type to the store.
type Definition struct {
	Provider meta.ResourceDefinitionProvider
	register func() error
}

// Define makes the definition of r's type; r may be empty.
func Define[R protobuf.DeepCopyable[R], T any, RS protobuf.TypedResource[T, R]](r RS) Definition {
	return Definition{
		Provider: any(r).(meta.ResourceDefinitionProvider),
		register: func() error {
			encoders()
			return protobuf.RegisterDynamic[R](r.Metadata().Type(), r)
		},
	}
}

var (
	registerMu sync.Mutex // guards registered
	registered = map[resource.Type]bool{}
)

// Register teaches the protobuf codec the type. Doing so again is harmless:
// the codec's registry is one per process, stores are many in tests.
func (d Definition) Register() error {
	kind := d.Provider.ResourceDefinition().Type
	registerMu.Lock()
	defer registerMu.Unlock()
	if registered[kind] {
		return nil
	}
	if err := d.register(); err != nil {
		return fmt.Errorf("register %s: %w", kind, err)
	}
	registered[kind] = true
	return nil
}

// Clone copies v deeply: slices, maps and pointers are not shared. Values
// with unexported fields (addresses, times) are immutable and copied as such.
func Clone[T any](v T) T {
	return clone(reflect.ValueOf(&v).Elem()).Interface().(T)
}

func clone(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(clone(v.Elem()))
		}
	case reflect.Interface:
		if !v.IsNil() {
			out.Set(clone(v.Elem()))
		}
	case reflect.Slice:
		if !v.IsNil() {
			out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				out.Index(i).Set(clone(v.Index(i)))
			}
		}
	case reflect.Map:
		if !v.IsNil() {
			out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
			for iter := v.MapRange(); iter.Next(); {
				out.SetMapIndex(iter.Key(), clone(iter.Value()))
			}
		}
	case reflect.Struct:
		out.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(clone(v.Field(i)))
			}
		}
	default:
		out.Set(v)
	}
	return out
}

// Map is a free-form YAML mapping; its protobuf form is google.protobuf.Struct.
type Map struct {
	Values map[string]any
}

// MarshalYAML shows the mapping itself.
func (m Map) MarshalYAML() (any, error) { return m.Values, nil }

// UnmarshalYAML reads the mapping itself.
func (m *Map) UnmarshalYAML(unmarshal func(any) error) error { return unmarshal(&m.Values) }

// MarshalBinary gives the bytes of a google.protobuf.Struct.
func (m Map) MarshalBinary() ([]byte, error) {
	s, err := structpb.NewStruct(m.Values)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(s)
}

// UnmarshalBinary reads the bytes of a google.protobuf.Struct.
func (m *Map) UnmarshalBinary(data []byte) error {
	var s structpb.Struct
	if err := proto.Unmarshal(data, &s); err != nil {
		return err
	}
	m.Values = s.AsMap()
	return nil
}

// Text is content of a file: bytes on the wire, a string in YAML.
type Text []byte

// MarshalYAML shows the text.
func (t Text) MarshalYAML() (any, error) { return string(t), nil }

// FileMode is a set of permission bits, shown as 0o644.
type FileMode uint32

// MarshalYAML shows the mode in octal.
func (m FileMode) MarshalYAML() (any, error) { return fmt.Sprintf("%#o", uint32(m)), nil }

// URL is a URL that is text in YAML; its protobuf form is common.URL.
type URL struct {
	url.URL
}

// ParseURL reads a URL.
func ParseURL(s string) (URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return URL{}, err
	}
	return URL{URL: *u}, nil
}

// MarshalYAML shows the URL as text.
func (u URL) MarshalYAML() (any, error) { return u.String(), nil }

// encoders teaches protoenc the messages that the wire has for network
// addresses: common.NetIP {1 ip}, common.NetIPPort {1 ip, 2 port},
// common.NetIPPrefix {1 ip, 2 prefix_length}, common.URL {1 full_path}.
var encoders = sync.OnceFunc(func() {
	protoenc.RegisterEncoderDecoder(
		func(a netip.Addr) ([]byte, error) { return putAddr(a, 0) },
		func(b []byte) (netip.Addr, error) { a, _, err := getAddr(b); return a, err })
	protoenc.RegisterEncoderDecoder(
		func(a netip.AddrPort) ([]byte, error) { return putAddr(a.Addr(), uint64(a.Port())) },
		func(b []byte) (netip.AddrPort, error) {
			a, n, err := getAddr(b)
			return netip.AddrPortFrom(a, uint16(n)), err
		})
	protoenc.RegisterEncoderDecoder(
		func(p netip.Prefix) ([]byte, error) { return putAddr(p.Addr(), uint64(max(p.Bits(), 0))) },
		func(b []byte) (netip.Prefix, error) {
			a, n, err := getAddr(b)
			if !a.IsValid() {
				return netip.Prefix{}, err
			}
			return netip.PrefixFrom(a, int(n)), err
		})
	protoenc.RegisterEncoderDecoder(
		func(u URL) ([]byte, error) {
			return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), u.String()), nil
		},
		func(b []byte) (URL, error) {
			text, _, err := fields(b)
			if err != nil {
				return URL{}, err
			}
			return ParseURL(string(text))
		})
})

func putAddr(a netip.Addr, number uint64) ([]byte, error) {
	raw, err := a.MarshalBinary()
	if err != nil {
		return nil, err
	}
	out := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), raw)
	if number != 0 {
		out = protowire.AppendVarint(protowire.AppendTag(out, 2, protowire.VarintType), number)
	}
	return out, nil
}

func getAddr(data []byte) (addr netip.Addr, number uint64, err error) {
	raw, number, err := fields(data)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	err = addr.UnmarshalBinary(raw)
	return addr, number, err
}

// fields reads field 1 as bytes and field 2 as a number.
func fields(data []byte) (text []byte, number uint64, err error) {
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, 0, protowire.ParseError(n)
		}
		data = data[n:]
		switch {
		case num == 1 && kind == protowire.BytesType:
			text, n = protowire.ConsumeBytes(data)
		case num == 2 && kind == protowire.VarintType:
			number, n = protowire.ConsumeVarint(data)
		default:
			n = protowire.ConsumeFieldValue(num, kind, data)
		}
		if n < 0 {
			return nil, 0, protowire.ParseError(n)
		}
		data = data[n:]
	}
	return text, number, nil
}
