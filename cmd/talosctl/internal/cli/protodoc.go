package cli

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// NodeDoc is a node's message as a document: the node's name first, then the
// message's fields without the metadata that carried the name.
func NodeDoc(node string, m proto.Message) Doc {
	return append(Doc{{Key: "node", Value: node}}, messageDoc(m.ProtoReflect())...)
}

// MessageDoc is a message as a document. Unlike protojson it writes 64-bit
// integers as numbers, keeps fields that are zero, and is always the same text.
func MessageDoc(m proto.Message) Doc { return messageDoc(m.ProtoReflect()) }

func messageDoc(m protoreflect.Message) Doc {
	doc := Doc{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if isMetadata(f) || f.HasPresence() && !m.Has(f) {
			continue
		}
		doc = append(doc, Field{Key: f.JSONName(), Value: fieldValue(f, m.Get(f))})
	}
	return doc
}

func isMetadata(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && f.Message().FullName() == "common.Metadata"
}

func fieldValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch {
	case f.IsMap():
		return mapDoc(f, v.Map())
	case f.IsList():
		list := make([]any, 0, v.List().Len())
		for i := range v.List().Len() {
			list = append(list, singleValue(f, v.List().Get(i)))
		}
		return list
	}
	return singleValue(f, v)
}

func mapDoc(f protoreflect.FieldDescriptor, m protoreflect.Map) Doc {
	doc := Doc{}
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		doc = append(doc, Field{Key: k.String(), Value: singleValue(f.MapValue(), v)})
		return true
	})
	slices.SortFunc(doc, func(a, b Field) int { return strings.Compare(a.Key, b.Key) })
	return doc
}

func singleValue(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.EnumKind:
		if value := f.Enum().Values().ByNumber(v.Enum()); value != nil {
			return string(value.Name())
		}
		return int32(v.Enum())
	case protoreflect.BytesKind:
		if b := v.Bytes(); !utf8.Valid(b) {
			return base64.StdEncoding.EncodeToString(b)
		}
		return string(v.Bytes())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return wellKnown(v.Message())
	}
	return v.Interface()
}

func wellKnown(m protoreflect.Message) any {
	switch x := m.Interface().(type) {
	case *timestamppb.Timestamp:
		return x.AsTime().Format(time.RFC3339Nano)
	case *durationpb.Duration:
		return x.AsDuration().String()
	case *anypb.Any:
		name := string(x.MessageName())
		inner, err := x.UnmarshalNew()
		if err != nil { // a type of a newer node
			return Doc{{Key: "type", Value: name}, {Key: "value", Value: base64.StdEncoding.EncodeToString(x.GetValue())}}
		}
		return append(Doc{{Key: "type", Value: name}}, MessageDoc(inner)...)
	}
	return messageDoc(m)
}
