package sequence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var quiet = slog.New(slog.DiscardHandler)

func step(name string, optional bool, err error) Step {
	return Step{Name: name, Optional: optional, Run: func(context.Context) error { return err }}
}

func TestRun(t *testing.T) {
	boom := errors.New("boom")
	release := make(chan struct{})
	defer close(release)
	hang := Step{Name: "hang", Run: func(context.Context) error { <-release; return nil }}
	hangOptional := hang
	hangOptional.Optional = true
	panics := Step{Name: "panics", Run: func(context.Context) error { panic("at the disco") }}
	for _, tt := range []struct {
		name   string
		first  Phase
		err    string // "" is success
		second bool   // the next phase ran
	}{
		{"good", Phase{Steps: []Step{step("a", false, nil), step("b", false, nil)}}, "", true},
		{"required fails", Phase{Steps: []Step{step("a", false, boom)}}, "test: first: a: boom", false},
		{"all failures are told", Phase{Steps: []Step{step("a", false, boom), step("b", false, boom)}}, "test: first: a: boom\nb: boom", false},
		{"optional fails", Phase{Steps: []Step{step("a", true, boom)}}, "", true},
		{"required hangs", Phase{Deadline: time.Second, Steps: []Step{hang}}, "test: first: hang: context deadline exceeded", false},
		{"optional hangs", Phase{Deadline: time.Second, Steps: []Step{hangOptional}}, "", true},
		{"panic", Phase{Steps: []Step{panics}}, "test: first: panics: panic: at the disco", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ran := false
			tt.first.Name = "first"
			second := Phase{Name: "second", Steps: []Step{{Name: "s", Run: func(context.Context) error { ran = true; return nil }}}}
			err := Run(t.Context(), quiet, "test", []Phase{tt.first, second}, nil)
			switch {
			case tt.err == "" && err != nil, tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)):
				t.Errorf("Run = %v, want %q", err, tt.err)
			}
			if ran != tt.second {
				t.Errorf("second phase ran: %t, want %t", ran, tt.second)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	var got []string
	tell := func(e Event) { got = append(got, fmt.Sprintf("%s %t %v", e.Phase, e.Done, e.Err)) }
	phases := []Phase{{Name: "a", Steps: []Step{step("x", false, nil)}}, {Name: "b", Steps: []Step{step("y", false, fs.ErrInvalid)}}}
	if err := Run(t.Context(), quiet, "test", phases, tell); !errors.Is(err, fs.ErrInvalid) {
		t.Fatalf("Run = %v, want ErrInvalid", err)
	}
	want := []string{"a false <nil>", "a true <nil>", "b false <nil>", "b true y: invalid argument"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
