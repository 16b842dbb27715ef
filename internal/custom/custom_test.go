package custom

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"talos/config"
)

func TestPut(t *testing.T) {
	for _, tt := range []struct {
		name       string
		have       string // "-" is no file
		op, path   string
		want       string
		err        error
		permission fs.FileMode
	}{
		{name: "create", have: "-", op: "create", want: "new\n", permission: 0o600},
		{name: "create what is there already", have: "new\n", op: "create", want: "new\n"},
		{name: "create over another", have: "old\n", op: "create", want: "old\n", err: fs.ErrExist},
		{name: "overwrite", have: "old\n", op: "overwrite", want: "new\n"},
		{name: "overwrite nothing", have: "-", op: "overwrite", want: "-", err: fs.ErrNotExist},
		{name: "append", have: "old\n", op: "append", want: "old\nnew\n"},
		{name: "append to nothing", have: "-", op: "append", want: "-", err: fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, "var/lib/x")
			if tt.have != "-" {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(tt.have), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for pass := range 2 { // the second pass changes nothing
				err := put(root, config.MachineFile{Path: "/var/lib/x", Op: tt.op, Content: "new\n", Permissions: config.FileMode(tt.permission)})
				if !errors.Is(err, tt.err) {
					t.Fatalf("pass %d: put = %v, want %v", pass, err, tt.err)
				}
				got, err := os.ReadFile(path)
				if err != nil {
					got = []byte("-")
				}
				if string(got) != tt.want {
					t.Errorf("pass %d: file = %q, want %q", pass, got, tt.want)
				}
			}
			if tt.permission != 0 {
				info, err := os.Stat(path)
				if err != nil || info.Mode().Perm() != tt.permission {
					t.Errorf("mode = %v, %v, want %v", info.Mode(), err, tt.permission)
				}
			}
		})
	}
}

func TestPutElsewhere(t *testing.T) {
	for _, path := range []string{"/etc/passwd", "/var", "/system/state/config.yaml", "/var/../etc/x", "/variable/x"} {
		root := t.TempDir()
		if err := put(root, config.MachineFile{Path: path, Op: "create", Content: "x"}); err == nil {
			t.Errorf("put(%s) = nil, want an error", path)
		}
		if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
			t.Errorf("put(%s) left %v, %v", path, entries, err)
		}
	}
}
