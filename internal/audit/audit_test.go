package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestRecord(t *testing.T) {
	var out bytes.Buffer
	log := New(&out)
	log.Record(Record{
		Start: time.Unix(0, 0), Duration: 1500 * time.Microsecond, Subject: "alice\n\"", Serial: "0a", Roles: []string{"os:admin"},
		Peer: "10.0.0.1:5", Method: "/machine.MachineService/Reboot", Nodes: []string{"n1"}, Code: "OK",
	})
	log.Record(Record{Method: "/x/Y", Code: "PermissionDenied", Reason: "unknown method", Via: "n2"})
	log.Close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("wrote %d lines, want 2: %q", len(lines), lines)
	}
	var first, second map[string]any
	for i, into := range []*map[string]any{&first, &second} {
		if err := json.Unmarshal([]byte(lines[i]), into); err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
	}
	for key, want := range map[string]any{"subject": "alice\n\"", "serial": "0a", "code": "OK", "ms": 1.5, "peer": "10.0.0.1:5"} {
		if first[key] != want {
			t.Errorf("%s = %v, want %v", key, first[key], want)
		}
	}
	if second["reason"] != "unknown method" || second["via"] != "n2" {
		t.Errorf("second line = %v", second)
	}
}

// stuck blocks its first write until released.
type stuck struct {
	bytes.Buffer
	started, release chan struct{}
	once             bool
}

func (s *stuck) Write(p []byte) (int, error) {
	if !s.once {
		s.once = true
		close(s.started)
		<-s.release
	}
	return s.Buffer.Write(p)
}

func TestStuckSinkDropsAndSaysSo(t *testing.T) {
	out := &stuck{started: make(chan struct{}), release: make(chan struct{})}
	log := New(out)
	log.Record(Record{Method: "/first"})
	<-out.started
	for range 2 * limit / 100 { // a line has more than 100 bytes
		log.Record(Record{Method: "/more"})
	}
	close(out.release)
	log.Close()
	if !strings.Contains(out.String(), "audit lines dropped") {
		t.Error("nothing says that lines were dropped")
	}
	if !strings.Contains(out.String(), "/first") || out.Len() > limit+1024 {
		t.Errorf("wrote %d bytes, limit is %d", out.Len(), limit)
	}
}
