package metal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"talos/internal/cmdline"
	"talos/internal/meta"
)

// TestWhileBusy: what is in use for a moment is waited for, and only that.
func TestWhileBusy(t *testing.T) {
	for _, tt := range []struct {
		name  string
		busy  int // how often
		err   error
		tries int
	}{
		{"free", 0, nil, 1}, {"for a moment", 3, nil, 4}, {"for ever", 1000, unix.EBUSY, 40}, {"broken", 0, unix.EIO, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			err := whileBusy(t.Context(), func() error {
				if tries++; tries <= tt.busy {
					return unix.EBUSY
				}
				return tt.err
			})
			if !errors.Is(err, tt.err) || tries != tt.tries {
				t.Errorf("%s: whileBusy = %v after %d tries, want %v after %d", tt.name, err, tries, tt.err, tt.tries)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := whileBusy(ctx, func() error { return unix.EBUSY }); !errors.Is(err, context.Canceled) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("whileBusy when time is up = %v", err)
	}
}

func TestToWipe(t *testing.T) {
	m := &Machine{Log: slog.New(slog.DiscardHandler)}
	for line, want := range map[string][]string{
		"quiet":                          {},
		"talos.experimental.wipe=system": {"EPHEMERAL", "STATE", "META"},
		"talos.experimental.wipe=system:META,STATE":   {"STATE", "META"},
		"talos.experimental.wipe=system:STATE,ROOT-A": nil,
		"talos.experimental.wipe=/dev/sda":            nil,
	} {
		if got := m.toWipe(cmdline.Parse(line)); !slices.Equal(got, want) {
			t.Errorf("toWipe(%q) = %q, want %q", line, got, want)
		}
	}
}

// TestWrongArguments: each names its argument, for people who see it elsewhere.
func TestWrongArguments(t *testing.T) {
	for line, want := range map[string][]string{
		"quiet":                                       nil,
		"talos.experimental.wipe=system:STATE":        nil,
		"talos.disks.unknown=ignore":                  nil,
		"talos.experimental.wipe=system:STATE,ROOT-A": {"kernel argument talos.experimental.wipe: "},
		"talos.experimental.wipe=/dev/sda talos.disks.unknown=ignored": {"kernel argument talos.experimental.wipe=/dev/sda: ", "kernel argument talos.disks.unknown=ignored: "},
	} {
		got := WrongArguments(cmdline.Parse(line))
		if len(got) != len(want) {
			t.Errorf("of %q wrong is %q, want %d", line, got, len(want))
			continue
		}
		for i, err := range got {
			if !strings.HasPrefix(err.Error(), want[i]) {
				t.Errorf("of %q wrong is %q, want %s…", line, err, want[i])
			}
		}
	}
}

// TestWipe: what can't be emptied stays noted, and nothing else; a disk that was
// taken out does not.
func TestWipe(t *testing.T) {
	store := func(text string) *Machine {
		m := &Machine{Log: slog.New(slog.DiscardHandler), storage: storage{meta: meta.New()}}
		for key, value := range map[meta.Key]string{keyWipe: text, 0x0a: "kept"} {
			if err := m.meta.Set(key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		return m
	}
	for name, tt := range map[string]struct {
		text, left, kept, err string
	}{
		"a disk that is gone":  {text: `{"disks":["serial that no disk has"]}`, kept: "kept"},
		"META":                 {text: `{"partitions":["META"],"disks":["serial that no disk has"]}`},
		"what can't be wiped":  {`{"partitions":["STATE","META"]}`, `{"partitions":["STATE","META"]}`, "kept", "wipe STATE: the disk has no such partition"},
		"from another version": {"STATE", "STATE", "kept", "read what is to be emptied"},
		"no such partition":    {`{"partitions":["ROOT-A"]}`, `{"partitions":["ROOT-A"]}`, "kept", "no system partition"},
	} {
		m := store(tt.text)
		m.system = &System{}
		err := m.Wipe(t.Context())
		left, _ := m.meta.Get(keyWipe)
		kept, _ := m.meta.Get(0x0a)
		if string(left) != tt.left || string(kept) != tt.kept || !strings.Contains(fmt.Sprint(err), cmp.Or(tt.err, "<nil>")) {
			t.Errorf("%s: Wipe = %v, leaves %q and %q, want %q, %q and %q", name, err, left, kept, tt.err, tt.left, tt.kept)
		}
	}
	m := store("")
	if err := m.NoteWipe([]string{"META", "STATE"}, []string{"wwid 1"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := m.meta.Get(keyWipe); string(got) != `{"partitions":["STATE","META"],"disks":["wwid 1"]}` {
		t.Errorf("NoteWipe noted %s", got)
	}
	if err := m.NoteWipe([]string{"ROOT-A"}, nil); err == nil {
		t.Error("NoteWipe takes a partition that is not to be emptied")
	}
}
