package kmsg

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct{ raw, want string }{
		{"6,1770,5893799506,-;cni0: port 2(veth0) entered blocking state\n", "kern:    info: [2026-01-02T04:42:18.799506Z]: cni0: port 2(veth0) entered blocking state"},
		{"30,1,0,-;said by a daemon\n SUBSYSTEM=net\n DEVICE=n1\n", "daemon:    info: [2026-01-02T03:04:05Z]: said by a daemon"},
		{"3,2,1000000,c,extra;a; b", "kern:     err: [2026-01-02T03:04:06Z]: a; b"},
		{"", ""}, {"nothing", ""}, {"x,1,2,-;t", ""}, {"1,x,2,-;t", ""}, {"1,1,x,-;t", ""}, {"1,1;t", ""},
	} {
		got := ""
		if r, err := Parse(c.raw); err == nil {
			got = r.Format(started)
		}
		if got != c.want {
			t.Errorf("Parse(%q) = %q, want %q", c.raw, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("6,1770,5893799506,-;text\n KEY=value\n")
	f.Fuzz(func(t *testing.T, raw string) {
		if r, err := Parse(raw); err == nil {
			r.Format(time.Unix(0, 0))
		}
	})
}
