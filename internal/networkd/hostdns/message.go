package hostdns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// The parts of RFC 1035 and RFC 6891 that a forwarder looks at.
const (
	headerLen = 12
	maxName   = 255
	plainUDP  = 512 // what everybody takes over UDP
	maxUDP    = 4096

	flagAnswer    = 0x80 // of the third byte
	flagTruncated = 0x02
	opcodeBits    = 0x78
	flagRecursive = 0x80 // of the fourth byte: recursion is available
	rcodeBits     = 0x0f

	rcodeOK       = 0
	rcodeServFail = 2
	rcodeNoName   = 3
	rcodeRefused  = 5

	typeA, typeSOA, typeAAAA, typeOPT, typeANY = 1, 6, 28, 41, 255
	classIN                                    = 1
)

var errMalformed = errors.New("malformed message")

// query is a question as a client sent it.
type query struct {
	raw  []byte
	name string // small letters, without the last dot; a dot within a label has a backslash
	kind uint16
	ends int    // where the question ends
	opt  int    // where the size of EDNS is, 0 without EDNS
	size int    // what the client takes over UDP
	key  string // what equal answers are known by; "" when there are none
}

// parseQuery reads a message with one question. Whatever else it holds goes
// on to the upstreams as it is.
func parseQuery(raw []byte) (query, error) {
	q := query{raw: raw, size: plainUDP}
	if len(raw) < headerLen || raw[2]&flagAnswer != 0 {
		return q, errMalformed // a reply to what nobody asked: never answered
	}
	if raw[2]&opcodeBits != 0 || binary.BigEndian.Uint16(raw[4:]) != 1 {
		return q, nil // updates and the like: refused
	}
	name, at, err := readName(raw, headerLen)
	if err != nil || at+4 > len(raw) {
		return q, errMalformed
	}
	q.name, q.kind, q.ends = name, binary.BigEndian.Uint16(raw[at:]), at+4
	plain := binary.BigEndian.Uint16(raw[6:]) == 0 && binary.BigEndian.Uint16(raw[8:]) == 0
	flags := []byte{raw[2] & 0x01, raw[3] & 0x30, 0} // recursion desired, AD and CD, DO
	err = eachRecord(raw, q.ends, func(r record) {
		if r.kind != typeOPT || q.opt != 0 {
			plain = false
			return
		}
		q.opt = r.at + 2
		q.size = min(max(int(binary.BigEndian.Uint16(raw[q.opt:])), plainUDP), maxUDP)
		flags[2] = 0x01 | raw[r.at+6]&0x80
		plain = plain && r.length == 0 // options, such as a cookie, are between two
	})
	if err != nil {
		return q, errMalformed
	}
	if plain {
		q.key = q.name + "\x00" + string(raw[at:q.ends]) + string(flags)
	}
	return q, nil
}

// forUpstream is the query under an id of its own. The size that the client
// takes over UDP is cut to what we take.
func (q query) forUpstream(id uint16) []byte {
	out := append([]byte(nil), q.raw...)
	binary.BigEndian.PutUint16(out, id)
	if q.opt != 0 {
		binary.BigEndian.PutUint16(out[q.opt:], uint16(q.size))
	}
	return out
}

// answers tells whether a message is the answer to this query: the same
// question under the id.
func (q query) answers(msg []byte, id uint16) bool {
	return len(msg) >= q.ends && binary.BigEndian.Uint16(msg) == id && msg[2]&flagAnswer != 0 &&
		binary.BigEndian.Uint16(msg[4:]) == 1 && string(msg[headerLen:q.ends]) == string(q.raw[headerLen:q.ends])
}

// reply starts an answer of our own: header and question.
func (q query) reply(rcode byte) []byte {
	out := append([]byte(nil), q.raw[:max(q.ends, headerLen)]...)
	out[2] = out[2]&(opcodeBits|0x01) | flagAnswer
	out[3] = out[3]&0x10 | flagRecursive | rcode
	clear(out[4:headerLen])
	if q.ends > 0 {
		out[5] = 1
	}
	return out
}

// addresses answers with those of the addresses that the question is for.
func (q query) addresses(list []netip.Addr, ttl time.Duration) []byte {
	out := q.reply(rcodeOK)
	count := 0
	for _, a := range list {
		kind := uint16(typeAAAA)
		if a = a.Unmap(); a.Is4() {
			kind = typeA
		}
		if q.kind != kind && q.kind != typeANY {
			continue
		}
		out = append(out, 0xc0, headerLen) // the name of the question
		out = binary.BigEndian.AppendUint16(out, kind)
		out = binary.BigEndian.AppendUint16(out, classIN)
		out = binary.BigEndian.AppendUint32(out, uint32(ttl/time.Second))
		out = binary.BigEndian.AppendUint16(out, uint16(a.BitLen()/8))
		out = append(out, a.AsSlice()...)
		count++
	}
	binary.BigEndian.PutUint16(out[6:], uint16(count))
	return out
}

// fit makes an answer one for this query: under its id, and over UDP not
// longer than the client takes.
func (q query) fit(answer []byte, udp bool) []byte {
	if udp && len(answer) > q.size {
		short := q.reply(answer[3] & rcodeBits)
		short[2] |= flagTruncated
		return short
	}
	binary.BigEndian.PutUint16(answer, binary.BigEndian.Uint16(q.raw))
	return answer
}

// lifetime is how long an answer may be kept: as its shortest-lived record
// says, or, when it says that there is nothing, its SOA record. Zero: not at all.
func lifetime(msg []byte, q query) time.Duration {
	rcode := msg[3] & rcodeBits
	if msg[2]&flagTruncated != 0 || rcode != rcodeOK && rcode != rcodeNoName {
		return 0
	}
	const none = ^uint32(0)
	shortest, soa, records := none, none, int(binary.BigEndian.Uint16(msg[6:]))
	n := 0
	err := eachRecord(msg, q.ends, func(r record) {
		n++
		if r.kind == typeOPT {
			return
		}
		ttl := binary.BigEndian.Uint32(msg[r.at+4:])
		shortest = min(shortest, ttl)
		if r.kind == typeSOA && n > records && r.length >= 20 {
			soa = min(ttl, binary.BigEndian.Uint32(msg[r.at+10+r.length-4:])) // RFC 2308: the smaller of TTL and MINIMUM
		}
	})
	switch {
	case err != nil:
		return 0
	case records > 0 && rcode == rcodeOK:
		return min(time.Duration(shortest)*time.Second, longest)
	case soa != none:
		return min(time.Duration(soa)*time.Second, longestNo)
	}
	return 0
}

// aged is a copy of an answer that has been kept for a while.
func aged(msg []byte, ends int, age time.Duration) []byte {
	out := append([]byte(nil), msg...)
	eachRecord(out, ends, func(r record) { // it was read when it was kept
		if r.kind != typeOPT {
			ttl := binary.BigEndian.Uint32(out[r.at+4:])
			binary.BigEndian.PutUint32(out[r.at+4:], ttl-min(ttl, uint32(age/time.Second)))
		}
	})
	return out
}

// record is a resource record: where its type stands, and how long its data is.
type record struct {
	kind       uint16
	at, length int
}

// eachRecord goes through the records of all sections from an offset on.
func eachRecord(msg []byte, at int, fn func(record)) error {
	count := 0
	for i := 6; i < headerLen; i += 2 {
		count += int(binary.BigEndian.Uint16(msg[i:]))
	}
	for range count {
		var err error
		if at, err = skipName(msg, at); err != nil {
			return err
		}
		if at+10 > len(msg) {
			return errMalformed
		}
		r := record{kind: binary.BigEndian.Uint16(msg[at:]), at: at, length: int(binary.BigEndian.Uint16(msg[at+8:]))}
		if at += 10 + r.length; at > len(msg) {
			return errMalformed
		}
		fn(r)
	}
	return nil
}

func skipName(msg []byte, at int) (int, error) {
	for at < len(msg) {
		switch n := int(msg[at]); {
		case n == 0:
			return at + 1, nil
		case n&0xc0 == 0xc0: // a pointer ends a name
			return at + 2, nil
		case n&0xc0 != 0:
			return 0, errMalformed
		default:
			at += 1 + n
		}
	}
	return 0, errMalformed
}

// readName reads the name of a question, in which no pointers are.
func readName(msg []byte, at int) (string, int, error) {
	var b strings.Builder
	for at < len(msg) && b.Len() <= maxName {
		n := int(msg[at])
		at++
		if n == 0 {
			return b.String(), at, nil
		}
		if n > 63 || at+n > len(msg) {
			break
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		for _, c := range msg[at : at+n] {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			if c == '.' || c == '\\' { // part of a label: another name than with a dot between two
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
		at += n
	}
	return "", 0, errMalformed
}
