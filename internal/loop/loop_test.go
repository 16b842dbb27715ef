package loop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		if !Sleep(ctx, time.Second) || time.Since(began) != time.Second {
			t.Errorf("Sleep(1s) ended after %v, want true after 1s", time.Since(began))
		}
		if Sleep(ctx, time.Hour) || time.Since(began) != time.Minute {
			t.Errorf("Sleep(1h) ended after %v, want false when its context ended", time.Since(began))
		}
	})
}

func TestProtect(t *testing.T) {
	plain, zero := errors.New("plain"), 0
	for _, c := range []struct {
		name string
		fn   func() error
		want string
	}{
		{"nil", func() error { return nil }, ""},
		{"error", func() error { return plain }, "plain"},
		{"panic with text", func() error { panic("text") }, "panic: text\n"},
		{"panic with an error", func() error { panic(plain) }, "panic: plain\n"},
		{"panic of the runtime", func() error { return fmt.Errorf("%d", 1/zero) }, "panic: runtime error: integer divide by zero\n"},
	} {
		err := Protect(c.fn)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s: Protect = %v, want %q", c.name, err, c.want)
		}
	}
}

// TestGroup: a panic is the group's error, and ends the others.
func TestGroup(t *testing.T) {
	group, ctx := NewGroup(t.Context())
	ended := false
	group.Go(func() error {
		<-ctx.Done()
		ended = true
		return nil
	})
	group.Go(func() error { panic("hostile bytes") })
	if err := group.Wait(); err == nil || !strings.Contains(err.Error(), "panic: hostile bytes") || !ended {
		t.Errorf("Wait = %v, the other ended: %t", err, ended)
	}
}
