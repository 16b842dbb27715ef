package configstore

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/protobuf/proto"

	"talos/config"
	"talos/internal/linux/atomicfile"
	configres "talos/internal/resources/config"
	"talos/internal/resources/runtime"
	"talos/internal/store"
)

// bench is the store of a node that boots again and again over one folder.
type bench struct {
	*Store
	dir     string
	base    []byte
	reboots int
	refuse  bool // to reboot
	events  []proto.Message
	off     func() // ends what runs
}

// document is that of a control plane node; making its keys takes time.
var document = sync.OnceValues(func() ([]byte, error) {
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		return nil, err
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		return nil, err
	}
	return made.ControlPlane.Bytes()
})

// newBench is a node that has not booted yet, with an empty STATE.
func newBench(t *testing.T) *bench {
	t.Helper()
	base, err := document()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{dir: t.TempDir(), base: base, off: func() {}}
	b.start(t)
	return b
}

// start is the node switched on; boot reads the configuration.
func (b *bench) start(t *testing.T) {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Store = New(Options{
		State: st, Log: slog.New(slog.DiscardHandler),
		Dir: filepath.Join(b.dir, "state", "config"), File: filepath.Join(b.dir, "state", "config.yaml"),
		Reboot: func(context.Context) error {
			if b.refuse {
				return errors.New("a shutdown is going on")
			}
			b.reboots++
			return nil
		},
		Notify: func(event proto.Message) { b.events = append(b.events, event) },
	})
	b.journal.Save = quick
}

// quick writes files as the journal does, without waiting for the disk.
func quick(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Update(path, data, 0o600)
}

func (b *bench) boot(t *testing.T) bool {
	t.Helper()
	b.start(t)
	if err := b.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b.Active() != nil
}

// configured is a node whose first configuration is in force.
func configured(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.boot(t)
	b.apply(t, Request{Document: b.base, Mode: modeAuto})
	return b
}

// with is the first document with a patch.
func (b *bench) with(t *testing.T, patch string) []byte {
	t.Helper()
	p, err := config.LoadPatch([]byte(patch))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := config.ApplyPatches(b.base, []config.Patch{p})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// named is the first document with a host name; named differently, it takes
// effect at once.
func (b *bench) named(t *testing.T, name string) []byte {
	t.Helper()
	return b.with(t, "machine: {network: {hostname: "+name+"}}")
}

// filed is the first document with a file, which needs a reboot.
func (b *bench) filed(t *testing.T, content string) []byte {
	t.Helper()
	return b.with(t, "machine: {files: [{path: /var/x, content: "+content+"}]}")
}

func (b *bench) apply(t *testing.T, r Request) Result {
	t.Helper()
	result, err := b.Apply(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// refused applies what must change nothing.
func (b *bench) refused(t *testing.T, r Request, kind error) error {
	t.Helper()
	before, index, active := b.read(t, b.File), b.read(t, filepath.Join(b.Dir, "index.json")), b.published(t)
	_, err := b.Apply(t.Context(), r)
	if !errors.Is(err, kind) {
		t.Errorf("Apply = %v, want %v", err, kind)
	}
	if b.read(t, b.File) != before || b.read(t, filepath.Join(b.Dir, "index.json")) != index || b.published(t) != active {
		t.Error("what was refused has changed something")
	}
	return err
}

// published is the document that controllers see, persistent the one to boot with.
func (b *bench) published(t *testing.T) string  { t.Helper(); return b.get(t, configres.ActiveID) }
func (b *bench) persistent(t *testing.T) string { t.Helper(); return b.get(t, configres.PersistentID) }

func (b *bench) get(t *testing.T, id resource.ID) string {
	t.Helper()
	res, err := safe.StateGetByID[*configres.MachineConfig](t.Context(), b.State, id)
	if state.IsNotFoundError(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(res.TypedSpec().Document)
}

// diagnostics is what the node tells people about its configuration.
func (b *bench) diagnostics(t *testing.T) []string {
	t.Helper()
	res, err := safe.StateGetByID[*runtime.Diagnostic](t.Context(), b.State, diagnosticID)
	if state.IsNotFoundError(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return res.TypedSpec().Details
}

func (b *bench) read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

func (b *bench) put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// states are the states of the configurations by number, the first being 1.
func (b *bench) states() []string {
	var out []string
	for _, e := range b.History().Entries {
		out = append([]string{e.State}, out...)
	}
	return out
}
