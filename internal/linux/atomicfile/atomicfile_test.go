package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// check fails unless path holds content with mode and is alone in its folder.
func check(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != content || info.Mode() != mode {
		t.Errorf("%s = %q with mode %v, want %q with %v", path, got, info.Mode(), content, mode)
	}
	if all, err := os.ReadDir(filepath.Dir(path)); err != nil || len(all) != 1 {
		t.Errorf("the folder holds %v, %v, want the file alone", all, err)
	}
}

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte, fs.FileMode) error{
		"Update": Update,
		"Save":   Save,
		"UpdateAs": func(path string, data []byte, mode fs.FileMode) error {
			return UpdateAs(path, data, mode, os.Getuid())
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			for _, content := range []string{"first", "second, and longer", ""} {
				if err := write(path, []byte(content), 0o640); err != nil {
					t.Fatal(err)
				}
				check(t, path, content, 0o640)
			}
			missing := filepath.Join(t.TempDir(), "no", "folder")
			if err := write(missing, nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("write(%s) = %v, want that the folder does not exist", missing, err)
			}
		})
	}
}

// TestUpdateLeavesAlone: a file that is as it should be stays the same file.
func TestUpdateLeavesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var before fs.FileInfo
	for _, step := range []struct {
		content string
		same    bool
	}{{"a", false}, {"a", true}, {"b", false}} {
		if err := Update(path, []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		after, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if before != nil && os.SameFile(before, after) != step.same {
			t.Errorf("after Update(%q): the same file = %v, want %v", step.content, !step.same, step.same)
		}
		before = after
	}
}

// TestFailedRename: what cannot take its place leaves nothing behind.
func TestFailedRename(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Save(path, []byte("x"), 0o600); err == nil {
		t.Error("Save over a folder succeeded")
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("the folder holds %v, %v, want what was there before", all, err)
	}
}
