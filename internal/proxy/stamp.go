package proxy

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of the wire protocol.
const (
	listMessages   = 1 // XResponse.messages
	itemMetadata   = 1 // X.metadata
	metadataHost   = 1 // common.Metadata.hostname
	metadataError  = 2
	metadataStatus = 3
	statusCode     = 1 // google.rpc.Status.code
	statusMessage  = 2
)

// StampList sets metadata.hostname of every item of a list; an empty list
// gets one item, so that the node that answered shows.
func StampList(list []byte, name string) ([]byte, error) {
	mark := hostField(name)
	out := make([]byte, 0, len(list)+len(mark)+16)
	marked := false
	for rest := list; len(rest) > 0; {
		num, wire, n := protowire.ConsumeField(rest)
		if n < 0 {
			return nil, fmt.Errorf("decode a list of answers: %w", protowire.ParseError(n))
		}
		field := rest[:n]
		rest = rest[n:]
		if num != listMessages || wire != protowire.BytesType {
			out = append(out, field...)
			continue
		}
		_, _, tagLen := protowire.ConsumeTag(field)
		item, _ := protowire.ConsumeBytes(field[tagLen:])
		if err := whole(item); err != nil {
			return nil, err
		}
		out = protowire.AppendTag(out, listMessages, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(len(item)+len(mark)))
		out = append(append(out, item...), mark...)
		marked = true
	}
	if !marked {
		out = append(out, listOf(mark)...)
	}
	return out, nil
}

// whole tells whether an item ends where its last field does. One that promises
// more would take our mark for a part of itself, and go under a name of its own.
func whole(item []byte) error {
	for rest := item; len(rest) > 0; {
		_, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			return fmt.Errorf("decode an answer: %w", protowire.ParseError(n))
		}
		rest = rest[n:]
	}
	return nil
}

// listOf makes a list of one item.
func listOf(item []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, listMessages, protowire.BytesType), item)
}

// hostField, appended to an item, sets its metadata.hostname: a decoder merges
// an embedded message that comes twice, the later value wins.
func hostField(name string) []byte { return metadataField(text(metadataHost, name)) }

func metadataField(content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, itemMetadata, protowire.BytesType), content)
}

func text(num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), s)
}

// failure makes the item of a node that gave no answer.
func failure(name string, err error) []byte {
	st := status.Convert(err)
	// A decoder refuses the whole list for one text that is none.
	said := strings.ToValidUTF8(st.Message(), "\uFFFD")
	detail := protowire.AppendVarint(protowire.AppendTag(nil, statusCode, protowire.VarintType), uint64(st.Code()))
	detail = append(detail, text(statusMessage, said)...)
	content := append(text(metadataHost, name), text(metadataError, said)...)
	content = protowire.AppendTag(content, metadataStatus, protowire.BytesType)
	return metadataField(protowire.AppendBytes(content, detail))
}
