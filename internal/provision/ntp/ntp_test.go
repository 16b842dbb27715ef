package ntp

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	beevik "github.com/beevik/ntp"
)

// TestAgainstClient: a client that checks what it is told believes the server.
func TestAgainstClient(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, slog.New(slog.DiscardHandler), conn) }()
	for _, version := range []int{3, 4} {
		response, err := beevik.QueryWithOptions(conn.LocalAddr().String(), beevik.QueryOptions{Version: version, Timeout: 30 * time.Second})
		if err == nil {
			err = response.Validate()
		}
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if off := response.ClockOffset.Abs(); off > time.Second+response.RTT { // the way there and back is not known apart
			t.Errorf("version %d: offset = %v, want about none", version, off)
		}
		if response.Stratum != stratum {
			t.Errorf("version %d: stratum = %d, want %d", version, response.Stratum, stratum)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v after its context ended", err)
	}
}

func TestIgnored(t *testing.T) {
	ok := make([]byte, packetLen)
	ok[0] = 4<<3 | client
	for name, request := range map[string][]byte{
		"short": ok[:packetLen-1], "a server's": append([]byte{4<<3 | server}, ok[1:]...), "version 0": append([]byte{client}, ok[1:]...), "version 5": append([]byte{5<<3 | client}, ok[1:]...),
	} {
		if reply, err := Reply(request, time.Now(), time.Now); err == nil {
			t.Errorf("%s: Reply = %x, want an error", name, reply)
		}
	}
	if _, err := Reply(ok, time.Now(), time.Now); err != nil {
		t.Errorf("Reply = %v", err)
	}
}

// TestTimestamp: RFC 5905, figure 4.
func TestTimestamp(t *testing.T) {
	for at, want := range map[string]uint64{
		"1970-01-01T00:00:00Z": 2_208_988_800 << 32, "1999-12-31T00:00:00.5Z": 3_155_587_200<<32 | 1<<31, "2036-02-07T06:28:16Z": 0,
	} {
		when, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := timestamp(when); got != want {
			t.Errorf("timestamp(%s) = %x, want %x", at, got, want)
		}
	}
}

func FuzzReply(f *testing.F) {
	request := make([]byte, packetLen)
	request[0] = 4<<3 | client
	f.Add(request)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, request []byte) {
		reply, err := Reply(request, time.Now(), time.Now)
		if err == nil && (len(reply) != packetLen || string(reply[24:32]) != string(request[40:48])) {
			t.Errorf("Reply(%x) = %x: not an answer to it", request, reply)
		}
	})
}
