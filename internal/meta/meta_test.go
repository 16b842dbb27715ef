package meta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFormat: the bytes are those that the package's comment tells of.
func TestFormat(t *testing.T) {
	b, err := Encode(Values{NetworkPlatform: []byte("eth0"), Upgrade: []byte("B"), UserReserved1: {}})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 262144)
	copy(want, "\x5a\x4b\x3c\x2d"+
		"\x00\x00\x00\x06\x00\x00\x00\x01B"+
		"\x00\x00\x00\x0a\x00\x00\x00\x04eth0"+
		"\x00\x00\x00\x0c\x00\x00\x00\x00")
	copy(want[262140:], "\xa5\xb4\xc3\xd2")
	sum := sha256.Sum256(want)
	copy(want[262108:], sum[:])
	if !bytes.Equal(b, want) {
		t.Errorf("Encode begins with % x and ends with % x, want % x and % x", b[:64], b[262100:], want[:64], want[262100:])
	}
	got, err := Decode(want)
	if diff := cmp.Diff(Values{NetworkPlatform: []byte("eth0"), Upgrade: []byte("B"), UserReserved1: {}}, got); diff != "" || err != nil {
		t.Errorf("Decode: %v (-want +got):\n%s", err, diff)
	}
}

// sealed is a copy with these records and a right checksum.
func sealed(records string) []byte {
	b := make([]byte, CopySize)
	binary.BigEndian.PutUint32(b, startMagic)
	copy(b[headSize:], records)
	binary.BigEndian.PutUint32(b[CopySize-4:], endMagic)
	sum := sha256.Sum256(b)
	copy(b[sumAt:], sum[:])
	return b
}

func TestDecodeRefuses(t *testing.T) {
	flipped := sealed("\x00\x00\x00\x06\x00\x00\x00\x01B")
	flipped[100] ^= 1
	for _, tt := range []struct {
		name string
		in   []byte
		want string
	}{
		{"short", make([]byte, 100), "100 bytes, want 262144"},
		{"empty", make([]byte, CopySize), "nothing is written there"},
		{"text", bytes.Repeat([]byte("x"), CopySize), "begins with 0x78787878"},
		{"flipped", flipped, "the checksum is wrong"},
		{"key", sealed("\x00\x00\x01\x06\x00\x00\x00\x01B"), "key 0x106, want at most 0xff"},
		{"length", sealed("\x00\x00\x00\x06\xff\xff\xff\xffB"), "value 0x6 of 4294967295 bytes, but only"},
		{"twice", sealed("\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00"), "value 0x6 is there twice"},
	} {
		if v, err := Decode(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Decode = %v, %v, want an error with %q", tt.name, v, err, tt.want)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	if _, err := Encode(Values{0: nil}); err == nil {
		t.Error("Encode took the key 0")
	}
	room := sumAt - headSize - recordSize
	if _, err := Encode(Values{UserReserved1: make([]byte, room)}); err != nil {
		t.Errorf("Encode of what just fits: %v", err)
	}
	_, err := Encode(Values{UserReserved1: make([]byte, room+1)})
	if err == nil || !strings.Contains(err.Error(), "there is room for 262096 more") {
		t.Errorf("Encode of a byte more = %v, want an error that says what fits", err)
	}
}

func TestDecodeEmpty(t *testing.T) {
	if _, err := Decode(make([]byte, CopySize)); !errors.Is(err, ErrEmpty) {
		t.Errorf("Decode of zeros = %v, want ErrEmpty", err)
	}
}

// FuzzDecode: whatever is decoded encodes to the same values. The records are
// given a right checksum half of the time, or nothing would get past it.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x06\x00\x00\x00\x01B"), true)
	f.Add([]byte("\x00\x00\x00\x0a\xff\xff\xff\xf0eth0"), true)
	f.Add(bytes.Repeat([]byte("\x00\x00\x00\x06\x00\x00\x00\x00"), 3), true)
	f.Add([]byte("\x5a\x4b\x3c\x2d\x00\x00\x00\x06"), false)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		b := make([]byte, CopySize)
		if copy(b, data); seal {
			b = sealed(string(data[:min(len(data), sumAt-headSize)]))
		}
		v, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(v)
		if err != nil {
			t.Fatalf("Encode of what was decoded: %v", err)
		}
		w, err := Decode(again)
		if diff := cmp.Diff(v, w); diff != "" || err != nil {
			t.Errorf("decoded, encoded, decoded: %v (-first +second):\n%s", err, diff)
		}
	})
}
