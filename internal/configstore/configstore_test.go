package configstore

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/api/machine"
	"talos/config"
	"talos/internal/resources/cluster"
	configres "talos/internal/resources/config"
	"talos/internal/store"
)

const (
	modeReboot   = machine.ApplyConfigurationRequest_REBOOT
	modeAuto     = machine.ApplyConfigurationRequest_AUTO
	modeNoReboot = machine.ApplyConfigurationRequest_NO_REBOOT
	modeStaged   = machine.ApplyConfigurationRequest_STAGED
	modeTry      = machine.ApplyConfigurationRequest_TRY
)

// bench is a store over a folder, with the documents of one cluster.
type bench struct {
	*Store
	dir     string
	reboots int
	base    []byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{dir: t.TempDir()}
	b.Store = New(st, slog.New(slog.NewTextHandler(io.Discard, nil)), func(context.Context) error { b.reboots++; return nil })
	b.file, b.seed = filepath.Join(b.dir, "state", "config.yaml"), filepath.Join(b.dir, "platform.yaml")
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	if b.base, err = made.ControlPlane.Bytes(); err != nil {
		t.Fatal(err)
	}
	return b
}

// with is the document with a patch.
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

func (b *bench) apply(t *testing.T, doc []byte, mode machine.ApplyConfigurationRequest_Mode) Result {
	t.Helper()
	result, err := b.Apply(t.Context(), doc, mode, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// published is the document that controllers see.
func (b *bench) published(t *testing.T) string {
	t.Helper()
	res, err := safe.StateGetByID[*configres.MachineConfig](t.Context(), b.st, configres.ActiveID)
	if state.IsNotFoundError(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(res.TypedSpec().Document)
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
	if err := write(path, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	for name, test := range map[string]struct {
		file, previous, seed string // "good" is a document, "" no file
		found, fails         bool
	}{
		"nothing":                  {},
		"from STATE":               {file: "good", found: true},
		"from the platform":        {seed: "good", found: true},
		"STATE before platform":    {file: "good", seed: "broken", found: true},
		"the previous one":         {file: "broken", previous: "good", found: true, fails: true},
		"nothing usable":           {file: "broken", previous: "broken", fails: true},
		"broken from the platform": {seed: "broken", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for path, content := range map[string]string{b.file: test.file, b.file + previousSuffix: test.previous, b.seed: test.seed} {
				switch content {
				case "good":
					b.put(t, path, string(b.base))
				case "broken":
					b.put(t, path, "machine: {")
				}
			}
			found, err := b.Load(t.Context())
			if found != test.found || (err != nil) != test.fails {
				t.Fatalf("Load = %v, %v; want %v, fails %v", found, err, test.found, test.fails)
			}
			if !found {
				if b.published(t) != "" {
					t.Error("something is in force")
				}
				return
			}
			if b.published(t) != string(b.base) || b.read(t, b.file) != string(b.base) {
				t.Error("the good document is not in force, or not on STATE")
			}
			kind, err := safe.StateGetByID[*configres.MachineType](t.Context(), b.st, configres.MachineTypeID)
			if err != nil || kind.TypedSpec().Type != cluster.TypeControlPlane {
				t.Errorf("machine type = %v, %v", kind, err)
			}
		})
	}
}

func TestApplyKeepsThePrevious(t *testing.T) {
	b := newBench(t)
	b.apply(t, b.base, modeAuto)
	next := b.with(t, "machine: {network: {hostname: node-1}}")
	result := b.apply(t, next, modeAuto)
	if result.Mode != modeNoReboot || !strings.Contains(result.Diff, "+        hostname: node-1\n") {
		t.Errorf("Apply = %v, diff:\n%s", result.Mode, result.Diff)
	}
	b.apply(t, next, modeAuto) // again: not the previous of itself
	if b.published(t) != string(next) || b.read(t, b.file) != string(next) || b.read(t, b.file+previousSuffix) != string(b.base) {
		t.Error("in force, stored and previous are not the new, the new and the old document")
	}
	info, err := os.Stat(b.file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v; want 0600", info.Mode(), err)
	}
}

func TestApplyRefused(t *testing.T) {
	b := newBench(t)
	b.apply(t, b.base, modeAuto)
	for name, test := range map[string]struct {
		doc  []byte
		mode machine.ApplyConfigurationRequest_Mode
		want string
	}{
		"broken":             {[]byte("machine: {typ: worker}"), modeAuto, "configuration:1:11: machine.typ: got an unknown key, want perhaps type"},
		"another type":       {b.with(t, workerPatch), modeAuto, "a node keeps its type until it is reset"},
		"no-reboot for file": {b.with(t, "machine: {files: [{path: /var/x, content: a}]}"), modeNoReboot, "need a reboot to take effect: machine.files[].content, machine.files[].path"},
		"try for file":       {b.with(t, "machine: {files: [{path: /var/x, content: a}]}"), modeTry, "need a reboot"},
	} {
		_, err := b.Apply(t.Context(), test.doc, test.mode, false, 0)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Apply = %v, want %q", name, err, test.want)
		}
		if b.published(t) != string(b.base) || b.read(t, b.file) != string(b.base) || b.read(t, b.file+previousSuffix) != "" {
			t.Errorf("%s: something has changed", name)
		}
	}
}

// workerPatch makes a worker's document of a control plane node's.
const workerPatch = `
machine: {type: worker, ca: {key: {$patch: delete}}}
cluster: {ca: {key: {$patch: delete}}}
`

func TestModes(t *testing.T) {
	const live, boots = "machine: {network: {hostname: a}}", "machine: {files: [{path: /var/x, content: a}]}"
	for name, test := range map[string]struct {
		patch         string
		mode          machine.ApplyConfigurationRequest_Mode
		dry           bool
		want          machine.ApplyConfigurationRequest_Mode
		stored, inUse bool
		reboots       int
	}{
		"auto, live":        {live, modeAuto, false, modeNoReboot, true, true, 0},
		"auto, needs boot":  {boots, modeAuto, false, modeReboot, true, false, 1},
		"reboot":            {live, modeReboot, false, modeReboot, true, false, 1},
		"staged":            {live, modeStaged, false, modeStaged, true, false, 0},
		"no-reboot":         {live, modeNoReboot, false, modeNoReboot, true, true, 0},
		"try":               {live, modeTry, false, modeTry, false, true, 0},
		"dry run":           {live, modeAuto, true, modeNoReboot, false, false, 0},
		"dry run of reboot": {boots, modeAuto, true, modeReboot, false, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.apply(t, b.base, modeAuto)
			doc := b.with(t, test.patch)
			result, err := b.Apply(t.Context(), doc, test.mode, test.dry, 0)
			if err != nil {
				t.Fatal(err)
			}
			stored, inUse := b.read(t, b.file) == string(doc), b.published(t) == string(doc)
			if result.Mode != test.want || result.Diff == "" || stored != test.stored || inUse != test.inUse || b.reboots != test.reboots {
				t.Errorf("Apply = %v, stored %v, in use %v, %d reboots; want %v, %v, %v, %d",
					result.Mode, stored, inUse, b.reboots, test.want, test.stored, test.inUse, test.reboots)
			}
		})
	}
}

func TestTryGoesBack(t *testing.T) {
	b := newBench(t)
	if _, err := b.Apply(t.Context(), b.base, modeTry, false, 0); err == nil {
		t.Error("try without a configuration to go back to = nil, want an error")
	}
	b.apply(t, b.base, modeAuto)
	doc := b.with(t, "machine: {network: {hostname: tried}}")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := b.Apply(ctx, doc, modeTry, false, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	_, err := b.st.WatchFor(ctx, configres.NewMachineConfig(configres.ActiveID).Metadata(), state.WithCondition(func(res resource.Resource) (bool, error) {
		mc, ok := res.(*configres.MachineConfig)
		return ok && string(mc.TypedSpec().Document) == string(b.base), nil
	}))
	if err != nil {
		t.Fatalf("the stored configuration did not come back: %v", err)
	}
}

func TestTryIsConfirmed(t *testing.T) {
	b := newBench(t)
	b.apply(t, b.base, modeAuto)
	doc := b.with(t, "machine: {network: {hostname: tried}}")
	b.apply(t, doc, modeTry)
	b.apply(t, doc, modeAuto)
	if b.revert != nil || b.read(t, b.file) != string(doc) {
		t.Error("a confirmed configuration is not stored, or will be taken back")
	}
}

func TestWaitConfigured(t *testing.T) {
	b := newBench(t)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := b.WaitConfigured(short); err == nil {
		t.Error("WaitConfigured without a configuration = nil, want an error")
	}
	b.apply(t, b.base, modeAuto)
	if err := b.WaitConfigured(t.Context()); err != nil {
		t.Errorf("WaitConfigured = %v, want nil", err)
	}
}
