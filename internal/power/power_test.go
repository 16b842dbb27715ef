package power

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNote(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meta", "power")
	for _, a := range []Action{Reboot, PowerOff} {
		if err := Note(file, a); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != string(a)+"\n" {
			t.Errorf("after Note(%s) the file is %q, %v", a, got, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("%d files, %v, want 1", len(left), err)
	}
}

func TestNoteImpossible(t *testing.T) {
	if err := Note("/proc/nowhere/power", Reboot); err == nil {
		t.Error("Note to a place that can't be written = nil")
	}
}
