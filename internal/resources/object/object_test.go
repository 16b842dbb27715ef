package object

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/siderolabs/protoenc"
	"go.yaml.in/yaml/v3"
)

type inner struct {
	Names []string
	Next  *inner
}

type everything struct {
	Text    string
	List    []inner
	Map     map[string][]byte
	Pointer *inner
	Any     any
	Address netip.Addr
	Since   time.Time
	None    []string
	NoMap   map[string]string
	hidden  []int
}

// TestCloneSharesNothing: nothing that is changed in the copy shows in the
// original, and what was nil stays nil.
func TestCloneSharesNothing(t *testing.T) {
	original := func() everything {
		return everything{
			Text: "text", List: []inner{{Names: []string{"a"}, Next: &inner{Names: []string{"b"}}}},
			Map: map[string][]byte{"k": []byte("v")}, Pointer: &inner{Names: []string{"c"}},
			Any:     map[string]any{"list": []any{"x", int64(1)}},
			Address: netip.MustParseAddr("10.0.0.1"), Since: time.Unix(1, 2), hidden: []int{1},
		}
	}
	from := original()
	made := Clone(from)
	opts := cmp.Options{cmp.AllowUnexported(everything{}), cmpopts.EquateComparable(netip.Addr{})}
	if diff := cmp.Diff(from, made, opts); diff != "" {
		t.Fatalf("Clone differs (-original +copy):\n%s", diff)
	}
	made.List[0].Names[0] = "changed"
	made.List[0].Next.Names[0] = "changed"
	made.Map["k"][0] = '!'
	made.Map["new"] = nil
	made.Pointer.Names = append(made.Pointer.Names[:0], "changed")
	made.Any.(map[string]any)["list"].([]any)[0] = "changed"
	if diff := cmp.Diff(original(), from, opts); diff != "" {
		t.Errorf("a change of the copy shows in the original (-before +after):\n%s", diff)
	}
}

// spec has each type whose wire form is ours.
type spec struct {
	Address netip.Addr     `protobuf:"1"`
	Port    netip.AddrPort `protobuf:"2"`
	Prefix  netip.Prefix   `protobuf:"3"`
	URL     URL            `protobuf:"4"`
	Free    Map            `protobuf:"5"`
}

func mustURL(t *testing.T, text string) URL {
	t.Helper()
	u, err := ParseURL(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestWire: the bytes are those of common.NetIP, NetIPPort, NetIPPrefix and URL,
// and come back as they were.
func TestWire(t *testing.T) {
	encoders()
	checkWire(t, netip.MustParseAddr("10.5.0.2"), []byte{0x0a, 4, 10, 5, 0, 2})
	checkWire(t, netip.MustParseAddr("2001:db8::1"), []byte{0x0a, 16, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	checkWire(t, netip.MustParseAddrPort("10.5.0.2:6443"), []byte{0x0a, 4, 10, 5, 0, 2, 0x10, 0xab, 0x32})
	checkWire(t, netip.MustParsePrefix("10.5.0.0/24"), []byte{0x0a, 4, 10, 5, 0, 0, 0x10, 24})
	checkWire(t, netip.MustParsePrefix("0.0.0.0/0"), []byte{0x0a, 4, 0, 0, 0, 0}) // 0 is not sent
	checkWire(t, mustURL(t, "https://a:1/b"), append([]byte{0x0a, 13}, "https://a:1/b"...))
}

// checkWire compares the bytes of a message in the first field of another.
func checkWire[T comparable](t *testing.T, value T, message []byte) {
	t.Helper()
	type outer struct {
		Field T `protobuf:"1"`
	}
	want := append([]byte{0x0a, byte(len(message))}, message...)
	got, err := protoenc.Marshal(&outer{value})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%T %v is encoded as % x, %v, want % x", value, value, got, err, want)
	}
	var back outer
	if err := protoenc.Unmarshal(want, &back); err != nil || back.Field != value {
		t.Errorf("% x is decoded as %v, %v, want %v", want, back.Field, err, value)
	}
}

// TestRoundTrip: all together, set and not set.
func TestRoundTrip(t *testing.T) {
	encoders()
	for _, in := range []spec{
		{},
		{
			Address: netip.MustParseAddr("fe80::1"), Port: netip.MustParseAddrPort("[::1]:53"), Prefix: netip.MustParsePrefix("fd00::/64"),
			URL: mustURL(t, "https://10.5.0.1:6443"), Free: Map{Values: map[string]any{"a": []any{"b", 1.5, true, nil}, "c": map[string]any{"d": "e"}}},
		},
	} {
		data, err := protoenc.Marshal(&in)
		if err != nil {
			t.Fatal(err)
		}
		var out spec
		if err := protoenc.Unmarshal(data, &out); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(in, out, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("after a round trip (-in +out):\n%s", diff)
		}
	}
}

// TestDamaged: bytes from elsewhere that are cut off are an error, not a panic.
func TestDamaged(t *testing.T) {
	whole := []byte{0x0a, 4, 10, 5, 0, 2, 0x10, 24}
	for n := 1; n < len(whole); n++ {
		if _, _, err := getAddr(whole[:n]); err == nil && n != 6 { // after 6 the number is missing, which is 0
			t.Errorf("getAddr(% x) succeeded", whole[:n])
		}
	}
	if _, _, err := getAddr([]byte{0x0a, 3, 1, 2, 3}); err == nil {
		t.Error("getAddr of an address of 3 bytes succeeded")
	}
}

// TestYAML: what people see.
func TestYAML(t *testing.T) {
	for _, c := range []struct {
		in   any
		want string
	}{
		{Map{Values: map[string]any{"a": map[string]any{"b": 1}}}, "a:\n    b: 1\n"},
		{Map{}, "{}\n"},
		{Text("two\nlines\n"), "|\n    two\n    lines\n"},
		{FileMode(0o644), "\"0644\"\n"},
		{mustURL(t, "https://a:1/b"), "https://a:1/b\n"},
		{URL{}, "\"\"\n"},
	} {
		got, err := yaml.Marshal(c.in)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != c.want {
			t.Errorf("%#v is shown as %q, want %q", c.in, got, c.want)
		}
	}
	var m Map
	if err := yaml.Unmarshal([]byte("a: {b: [1, x]}"), &m); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"a": map[string]any{"b": []any{1, "x"}}}, m.Values); diff != "" {
		t.Errorf("Map from YAML (-want +got):\n%s", diff)
	}
}
