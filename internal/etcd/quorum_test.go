package etcd

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// voters makes a view: u is a voter that is up, d one that is down, l a learner.
// Ids count from 1; the first is the leader.
func voters(pattern string) View {
	v := View{Leader: 1}
	for i, c := range pattern {
		p := Peer{ID: uint64(i + 1), Name: fmt.Sprintf("n%d", i+1), Up: c != 'd', Learner: c == 'l'}
		if c == 'd' {
			p.Err = "connection refused"
		}
		v.Peers = append(v.Peers, p)
	}
	return v
}

func TestQuorum(t *testing.T) {
	for _, c := range []struct {
		pattern        string
		id             uint64
		stop, remove   bool
		verdict, cause string
	}{
		{"u", 1, true, false, "1 of 1 voters up, quorum 1 of 1, can lose 0, safe to reboot: yes, the API is away meanwhile", "is the only voting member"},
		{"uu", 1, false, true, "2 of 2 voters up, quorum 2 of 2, can lose 0, safe to reboot: no", ""},
		{"ud", 1, false, false, "1 of 2 voters up, quorum 2 of 2, can lose 0, safe to reboot: no, the majority is lost already", "n2: connection refused"},
		{"ud", 2, true, true, "1 of 2 voters up, quorum 2 of 2, can lose 0, safe to reboot: no, the majority is lost already", ""},
		{"uuu", 2, true, true, "3 of 3 voters up, quorum 2 of 3, can lose 1, safe to reboot: yes", ""},
		{"uud", 1, false, false, "2 of 3 voters up, quorum 2 of 3, can lose 0, safe to reboot: no", "without n1, 1 of the 2 voters that stay would be up, and 2 are needed"},
		{"uud", 3, true, true, "2 of 3 voters up, quorum 2 of 3, can lose 0, safe to reboot: yes", ""},
		{"uul", 3, true, true, "2 of 2 voters up, quorum 2 of 2, can lose 0, safe to reboot: yes", ""},
		{"uul", 1, false, true, "2 of 2 voters up, quorum 2 of 2, can lose 0, safe to reboot: no", ""},
		{"ul", 2, true, true, "1 of 1 voters up, quorum 1 of 1, can lose 0, safe to reboot: yes", ""},
		{"ul", 1, true, false, "1 of 1 voters up, quorum 1 of 1, can lose 0, safe to reboot: yes, the API is away meanwhile", "is the only voting member"},
		{"uuuu", 1, true, true, "4 of 4 voters up, quorum 3 of 4, can lose 1, safe to reboot: yes", ""},
		{"uuudd", 1, false, false, "3 of 5 voters up, quorum 3 of 5, can lose 0, safe to reboot: no", "n4: connection refused; n5: connection refused"},
		{"uuuud", 1, true, true, "4 of 5 voters up, quorum 3 of 5, can lose 1, safe to reboot: yes", ""},
	} {
		t.Run(fmt.Sprint(c.pattern, c.id), func(t *testing.T) {
			v := voters(c.pattern)
			if err := v.MayStop(c.id); (err == nil) != c.stop || err != nil && !errors.Is(err, ErrQuorum) {
				t.Errorf("MayStop = %v, want allowed %t", err, c.stop)
			}
			err := v.MayRemove(c.id)
			if (err == nil) != c.remove || err != nil && !errors.Is(err, ErrQuorum) {
				t.Errorf("MayRemove = %v, want allowed %t", err, c.remove)
			}
			if err != nil && !strings.Contains(err.Error(), c.cause) {
				t.Errorf("MayRemove = %v, want it to say %q", err, c.cause)
			}
			if got, want := v.SafeToReboot(c.id), strings.Contains(c.verdict, "reboot: yes"); got != want {
				t.Errorf("SafeToReboot = %t, want %t", got, want)
			}
			if got := v.Verdict(c.id); got != c.verdict {
				t.Errorf("Verdict = %q, want %q", got, c.verdict)
			}
		})
	}
}
