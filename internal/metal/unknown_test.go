package metal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"talos/internal/cmdline"
	"talos/internal/disk"
	"talos/internal/volume"
)

// silent is what volume.System says where these disks do not answer.
func silent(names ...string) error {
	e := &volume.UnknownError{}
	for _, name := range names {
		e.Disks = append(e.Disks, volume.Disk{Disk: disk.Disk{DevPath: "/dev/" + name}, Err: disk.ErrSilent})
	}
	return e
}

// TestAwaitDisks: the machine waits for as long as a disk may be the system's,
// says for which when that changes, and starts anew if one is.
func TestAwaitDisks(t *testing.T) {
	type answer struct {
		found bool
		err   error
	}
	errTwo := errors.New("2 disks are system disks")
	for _, tt := range []struct {
		name    string
		first   error
		answers []answer
		want    string
	}{
		{"all are known", nil, nil, "false <nil>"},
		{"it answers, and is blank", silent("sda"), []answer{{false, silent("sda")}, {false, silent("sda")}, {}}, "sda; false <nil>"},
		{"it answers, and is the system's", silent("sda", "sdb"), []answer{{false, silent("sda")}, {true, nil}}, "sda sdb; sda; true <nil>"},
		{"two are the system's", silent("sda"), []answer{{false, errTwo}}, "sda; true " + errTwo.Error()},
		{"never", silent("sda"), nil, "sda; false context deadline exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, got, n := &Machine{}, "", 0
				if tt.first != nil {
					m.unknown = &unknown{tt.first, func(context.Context) (bool, error) {
						if tt.answers == nil {
							return false, tt.first
						}
						n++
						return tt.answers[n-1].found, tt.answers[n-1].err
					}}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 1000*askAgain)
				defer cancel()
				found, err := m.AwaitDisks(ctx, func(why []string) {
					if why[len(why)-1] != advice {
						t.Errorf("said %q, want the advice in the end", why)
					}
					for _, w := range why[:len(why)-1] {
						name, _, _ := strings.Cut(strings.TrimPrefix(w, "/dev/"), " ")
						got += name + " "
					}
					got = strings.TrimSpace(got) + "; "
				})
				if got += fmt.Sprint(found, " ", err); got != tt.want || n != len(tt.answers) {
					t.Errorf("AwaitDisks = %s after %d looks, want %s", got, n, tt.want)
				}
			})
		})
	}
}

// TestLater: who starts the machine may say that its system is on no such disk.
func TestLater(t *testing.T) {
	m := &Machine{Log: slog.New(slog.DiscardHandler)}
	for _, tt := range []struct {
		err  error
		line string
		want bool
	}{
		{nil, "", false}, {errors.New("2 disks are system disks"), "", false}, {silent("sda"), "quiet", true},
		{silent("sda"), "talos.disks.unknown=ignore", false}, {silent("sda"), "talos.disks.unknown=no", true},
	} {
		if got := m.later(tt.err, cmdline.Parse(tt.line)); got != tt.want {
			t.Errorf("later(%v, %q) = %t, want %t", tt.err, tt.line, got, tt.want)
		}
	}
}
