package configstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/google/go-cmp/cmp"

	"talos/api/machine"
	"talos/config"
	"talos/internal/resources/cluster"
	configres "talos/internal/resources/config"
)

func TestBootFinds(t *testing.T) {
	for name, test := range map[string]struct {
		file    string // "good" is a document, "" no file
		found   bool
		trouble string
	}{
		"nothing":        {},
		"from STATE":     {file: "good", found: true},
		"nothing usable": {file: "broken", trouble: "config.yaml"},
		"an empty file":  {file: "empty", trouble: "an empty document"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			content := map[string]string{"good": string(b.base), "broken": "machine: {", "empty": "\n"}[test.file]
			if test.file != "" {
				b.put(t, b.File, content)
			}
			if found := b.boot(t); found != test.found {
				t.Fatalf("load = %v, want %v", found, test.found)
			}
			if got := strings.Join(b.diagnostics(t), ""); !strings.Contains(got, test.trouble) || test.trouble == "" && got != "" {
				t.Errorf("diagnostics = %q, want %q", got, test.trouble)
			}
			if (len(b.events) > 0) != (test.trouble != "") {
				t.Errorf("events = %v", b.events)
			}
			if loaded, err := b.Loaded(t.Context()); err != nil || loaded != test.found {
				t.Errorf("Loaded = %v, %v, want %v", loaded, err, test.found)
			}
			if !found(b) {
				if b.published(t) != "" {
					t.Error("something is in force")
				}
				return
			}
			if b.published(t) != string(b.base) || b.persistent(t) != string(b.base) || b.read(t, b.File) != string(b.base) {
				t.Error("the good document is not in force, or not on STATE")
			}
			kind, err := safe.StateGetByID[*configres.MachineType](t.Context(), b.State, configres.MachineTypeID)
			if err != nil || kind.TypedSpec().Type != cluster.TypeControlPlane {
				t.Errorf("machine type = %v, %v", kind, err)
			}
			if b.boot(t); b.published(t) != string(b.base) || len(b.History().Entries) != 1 {
				t.Errorf("after another boot: history %v", b.History().Entries)
			}
		})
	}
}

// TestOffer: what comes from outside is the first configuration, if it is a
// good one and none is there; what was on STATE before and is not usable is no
// obstacle.
func TestOffer(t *testing.T) {
	b := newBench(t)
	if err := b.Offer(t.Context(), b.base, "the platform"); !errors.Is(err, ErrStarting) {
		t.Errorf("Offer before STATE was read = %v, want %v", err, ErrStarting)
	}
	b.put(t, b.File, "machine: {")
	b.boot(t)
	before := len(b.events)
	for range 2 {
		if err := b.Offer(t.Context(), []byte("machine: {type: x}"), "the platform"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "machine.type") {
			t.Errorf("Offer of a bad one = %v", err)
		}
	}
	if len(b.events) != before+1 || b.published(t) != "" {
		t.Errorf("events %v after the same bad one twice, want one of it", b.events[before:])
	}
	// A link that the machine lacks is no reason: it may come late.
	late := b.with(t, "machine: {network: {interfaces: [{interface: eth7, dhcp: true}]}}")
	if err := b.Offer(t.Context(), late, "the platform"); err != nil {
		t.Fatal(err)
	}
	if b.published(t) != string(late) || b.read(t, b.File) != string(late) || b.History().Entries[0].Note != "from the platform" {
		t.Errorf("what was offered is not in force, or not on STATE: %+v", b.History())
	}
	if err := b.Offer(t.Context(), b.base, "another"); !errors.Is(err, ErrTaken) || b.published(t) != string(late) {
		t.Errorf("Offer of a second one = %v, want %v", err, ErrTaken)
	}
}

func found(b *bench) bool { return b.Active() != nil }

// TestDamageIsSurvived: whatever one finds on STATE, the last good one is in
// force and people are told.
func TestDamageIsSurvived(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(t *testing.T, b *bench)
		want   string // host name in force
		quiet  bool
	}{
		"the newest document cut off": {func(t *testing.T, b *bench) { b.put(t, filepath.Join(b.Dir, "3.yaml"), "machine: {") }, "two", false},
		"the newest document gone":    {func(t *testing.T, b *bench) { remove(t, filepath.Join(b.Dir, "3.yaml")) }, "two", false},
		"the index cut off":           {func(t *testing.T, b *bench) { b.put(t, filepath.Join(b.Dir, "index.json"), `{"format": 1, "la`) }, "three", false},
		"the index of a later format": {func(t *testing.T, b *bench) { b.put(t, filepath.Join(b.Dir, "index.json"), `{"format": 9}`) }, "three", false},
		"the index gone":              {func(t *testing.T, b *bench) { remove(t, filepath.Join(b.Dir, "index.json")) }, "three", true},
		"the copy cut off":            {func(t *testing.T, b *bench) { b.put(t, b.File, "machine: {") }, "three", false},
		"the copy gone":               {func(t *testing.T, b *bench) { remove(t, b.File) }, "three", true},
		"the copy of yesterday":       {func(t *testing.T, b *bench) { b.put(t, b.File, string(b.named(t, "two"))) }, "three", true},
		"a copy of somebody else's":   {func(t *testing.T, b *bench) { b.put(t, b.File, string(b.named(t, "other"))) }, "other", true},
		"a half-written file beside":  {func(t *testing.T, b *bench) { b.put(t, filepath.Join(b.Dir, ".new-1"), "x") }, "three", true},
		"the copy and the newest": {func(t *testing.T, b *bench) {
			b.put(t, b.File, "")
			remove(t, filepath.Join(b.Dir, "3.yaml"))
		}, "two", false},
		"everything but the first": {func(t *testing.T, b *bench) {
			for _, name := range []string{"index.json", "2.yaml", "3.yaml"} {
				b.put(t, filepath.Join(b.Dir, name), "x")
			}
			remove(t, b.File)
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := configured(t)
			b.apply(t, Request{Document: b.named(t, "two"), Mode: modeAuto})
			b.apply(t, Request{Document: b.named(t, "three"), Mode: modeAuto})
			test.damage(t, b)
			for range 2 { // the second boot finds what the first has repaired
				if !b.boot(t) {
					t.Fatal("nothing is in force")
				}
				got := ""
				if n := b.Active().Machine.Network; n != nil {
					got = n.Hostname
				}
				if got != test.want {
					t.Errorf("host name in force = %q, want %q", got, test.want)
				}
				if told := len(b.diagnostics(t)) > 0; told == test.quiet {
					t.Errorf("diagnostics = %q", b.diagnostics(t))
				}
				if b.read(t, b.File) != b.published(t) {
					t.Error("the copy to boot with is not what is in force")
				}
			}
			b.apply(t, Request{Document: b.named(t, "four"), Mode: modeAuto})
			if got := b.diagnostics(t); got != nil {
				t.Errorf("diagnostics after a good one = %q, want none", got)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestHistoryIsKept(t *testing.T) {
	b := configured(t)
	next := b.named(t, "node-1")
	result := b.apply(t, Request{Document: next, Mode: modeAuto, By: "alice"})
	if result.Mode != modeNoReboot || result.Number != 2 || !strings.Contains(result.Diff, "+machine.network.hostname: node-1\n") {
		t.Errorf("Apply = %+v", result)
	}
	if again := b.apply(t, Request{Document: next, Mode: modeAuto, By: "bob"}); again.Number != 2 {
		t.Errorf("the same again has number %d, want 2", again.Number)
	}
	if b.published(t) != string(next) || b.persistent(t) != string(next) || b.read(t, b.File) != string(next) {
		t.Error("the new one is not in force, or not on STATE")
	}
	h := b.History()
	if h.Active != 2 || h.Stored != 2 || len(h.Entries) != 2 {
		t.Fatalf("History = %+v", h)
	}
	e := h.Entries[0]
	if e.By != "alice" || e.Mode != "auto" || e.State != StateActive || !slices.Equal(e.Changed, []string{"machine.network.hostname"}) || time.Since(e.Time) > time.Minute {
		t.Errorf("the newest = %+v", e)
	}
	if number, doc, err := b.Document(1); err != nil || number != 1 || string(doc) != string(b.base) {
		t.Errorf("Document(1) = %d, %v", number, err)
	}
	if _, _, err := b.Document(9); err == nil {
		t.Error("Document(9) = nil, want an error")
	}
	for _, path := range []string{b.File, filepath.Join(b.Dir, "2.yaml"), filepath.Join(b.Dir, "index.json")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s = %v, %v; want 0600", path, info.Mode(), err)
		}
	}
}

func TestRefused(t *testing.T) {
	const noWay = "there is no configuration to go back to"
	for name, test := range map[string]struct {
		request func(t *testing.T, b *bench) Request
		fresh   bool // without a configuration before
		kind    error
		want    string
	}{
		"broken": {func(*testing.T, *bench) Request {
			return Request{Document: []byte("machine: {typ: worker}"), Mode: modeAuto}
		}, false, ErrInvalid, "configuration:1:11: machine.typ: got an unknown key, want perhaps type"},
		"another type": {func(t *testing.T, b *bench) Request {
			return Request{Document: b.with(t, workerPatch), Mode: modeAuto}
		}, false, ErrInvalid, "a node keeps its type until it is reset"},
		"no-reboot for a file": {func(t *testing.T, b *bench) Request {
			return Request{Document: b.filed(t, "a"), Mode: modeNoReboot}
		}, false, ErrInvalid, "need a reboot to take effect: machine.files[].content, machine.files[].path"},
		"try for a file": {func(t *testing.T, b *bench) Request {
			return Request{Document: b.filed(t, "a"), Mode: modeTry}
		}, false, ErrInvalid, "mode try: these keys need a reboot"},
		"try as the first": {func(_ *testing.T, b *bench) Request {
			return Request{Document: b.base, Mode: modeTry}
		}, true, ErrInvalid, noWay},
		"to confirm as the first": {func(_ *testing.T, b *bench) Request {
			return Request{Document: b.base, Mode: modeAuto, Confirm: time.Minute}
		}, true, ErrInvalid, noWay},
		"staged as the first": {func(_ *testing.T, b *bench) Request {
			return Request{Document: b.base, Mode: modeStaged}
		}, true, ErrInvalid, "the first one is applied in mode auto"},
		"a week to confirm": {func(t *testing.T, b *bench) Request {
			return Request{Document: b.named(t, "a"), Mode: modeAuto, Confirm: 7 * 24 * time.Hour}
		}, false, ErrInvalid, "got 168h0m0s, want 1s to 24h0m0s"},
		"made from another": {func(t *testing.T, b *bench) Request {
			return Request{Document: b.named(t, "a"), Mode: modeAuto, Base: 7}
		}, false, ErrChanged, "made from number 7, but by now number 1 is there"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if b.boot(t); !test.fresh {
				b.apply(t, Request{Document: b.base, Mode: modeAuto})
			}
			if err := b.refused(t, test.request(t, b), test.kind); !strings.Contains(err.Error(), test.want) {
				t.Errorf("Apply = %v, want %q", err, test.want)
			}
		})
	}
}

// workerPatch makes a worker's document of a control plane node's.
const workerPatch = `
machine: {type: worker, ca: {key: {$patch: delete}}}
cluster: {ca: {key: {$patch: delete}}}
`

func TestModes(t *testing.T) {
	for name, test := range map[string]struct {
		boots         bool // the change needs a reboot
		mode          machine.ApplyConfigurationRequest_Mode
		dry           bool
		want          machine.ApplyConfigurationRequest_Mode
		stored, inUse bool
		reboots       int
		states        []string
	}{
		"auto, live":        {false, modeAuto, false, modeNoReboot, true, true, 0, []string{"confirmed", "active"}},
		"auto, needs boot":  {true, modeAuto, false, modeReboot, true, false, 1, []string{"active", "staged"}},
		"reboot":            {false, modeReboot, false, modeReboot, true, false, 1, []string{"active", "staged"}},
		"staged":            {false, modeStaged, false, modeStaged, true, false, 0, []string{"active", "staged"}},
		"no-reboot":         {false, modeNoReboot, false, modeNoReboot, true, true, 0, []string{"confirmed", "active"}},
		"try":               {false, modeTry, false, modeTry, false, true, 0, []string{"confirmed", "trying"}},
		"dry run":           {false, modeAuto, true, modeNoReboot, false, false, 0, []string{"active"}},
		"dry run of reboot": {true, modeAuto, true, modeReboot, false, false, 0, []string{"active"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := configured(t)
			doc := b.named(t, "a")
			if test.boots {
				doc = b.filed(t, "a")
			}
			result := b.apply(t, Request{Document: doc, Mode: test.mode, DryRun: test.dry})
			stored, inUse := b.read(t, b.File) == string(doc), b.published(t) == string(doc)
			if result.Mode != test.want || result.Diff == "" || stored != test.stored || inUse != test.inUse || b.reboots != test.reboots {
				t.Errorf("Apply = %v, stored %v, in use %v, %d reboots; want %v, %v, %v, %d",
					result.Mode, stored, inUse, b.reboots, test.want, test.stored, test.inUse, test.reboots)
			}
			if (b.persistent(t) == string(doc)) != test.stored {
				t.Error("the persistent configuration is not what is stored")
			}
			if diff := cmp.Diff(test.states, b.states()); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
		})
	}
}

// TestStagedIsReplaced: a staged configuration is what the next one is made
// from; one that does not know it replaces it, and says so.
func TestStagedIsReplaced(t *testing.T) {
	b := configured(t)
	b.apply(t, Request{Document: b.named(t, "staged"), Mode: modeStaged, By: "alice"})
	if number, _, _ := b.Document(0); number != 2 {
		t.Errorf("the document to change is number %d, want the staged 2", number)
	}
	b.refused(t, Request{Document: b.named(t, "other"), Mode: modeAuto, Base: 1}, ErrChanged)
	result := b.apply(t, Request{Document: b.named(t, "other"), Mode: modeAuto, Base: 2})
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "configuration 2 (applied by alice at") {
		t.Errorf("warnings = %q, want one of the staged configuration", result.Warnings)
	}
	if diff := cmp.Diff([]string{"confirmed", "discarded", "active"}, b.states()); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

// TestStagedThenAtOnce: what is staged may be put in force at once.
func TestStagedThenAtOnce(t *testing.T) {
	b := configured(t)
	doc := b.named(t, "staged")
	b.apply(t, Request{Document: doc, Mode: modeStaged})
	if result := b.apply(t, Request{Document: doc, Mode: modeAuto}); result.Number != 2 || b.published(t) != string(doc) {
		t.Errorf("Apply = %+v, states %v", result, b.states())
	}
}

func TestStagedComesInForce(t *testing.T) {
	b := configured(t)
	doc := b.filed(t, "a")
	b.apply(t, Request{Document: doc, Mode: modeStaged})
	b.boot(t)
	if b.published(t) != string(doc) || !slices.Equal(b.states(), []string{"confirmed", "active"}) {
		t.Errorf("states = %v", b.states())
	}
}

func TestHistoryIsBounded(t *testing.T) {
	b := configured(t)
	for i := range 30 {
		b.apply(t, Request{Document: b.named(t, "n"+string(rune('a'+i%26))+string(rune('a'+i/26))), Mode: modeAuto})
	}
	h := b.History()
	if len(h.Entries) != 20 || h.Entries[0].Number != 31 || h.Entries[19].Number != 12 {
		t.Fatalf("%d entries, %d to %d", len(h.Entries), h.Entries[19].Number, h.Entries[0].Number)
	}
	files, err := os.ReadDir(b.Dir)
	if err != nil || len(files) != 21 { // and the index
		t.Errorf("%d files, %v; want 21", len(files), err)
	}
}

// TestLastGoodIsKept: however many are taken back, the one before stays.
func TestLastGoodIsKept(t *testing.T) {
	b := configured(t)
	b.apply(t, Request{Document: b.named(t, "good"), Mode: modeAuto})
	for i := range 30 {
		b.apply(t, Request{Document: b.named(t, "n"+string(rune('a'+i%26))+string(rune('a'+i/26))), Mode: modeTry})
	}
	h := b.History()
	for _, number := range []uint64{1, 2} {
		if !slices.ContainsFunc(h.Entries, func(e Entry) bool { return e.Number == number }) {
			t.Errorf("number %d is gone", number)
		}
	}
	if len(h.Entries) > 20 {
		t.Errorf("%d entries, want 20 at most", len(h.Entries))
	}
}

func TestNothingBeforeTheBoot(t *testing.T) {
	b := newBench(t)
	b.refused(t, Request{Document: b.base, Mode: modeAuto}, ErrStarting)
	if _, err := b.Confirm(t.Context(), 0); err == nil {
		t.Error("Confirm = nil, want an error")
	}
}

func TestWaitConfigured(t *testing.T) {
	b := newBench(t)
	b.boot(t)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := b.WaitConfigured(short); err == nil {
		t.Error("WaitConfigured without a configuration = nil, want an error")
	}
	b.apply(t, Request{Document: b.base, Mode: modeAuto})
	if err := b.WaitConfigured(t.Context()); err != nil {
		t.Errorf("WaitConfigured = %v, want nil", err)
	}
}

// TestPlan: what becomes of the disks is told before anything is stored, and
// nothing is stored where it can't be done.
func TestPlan(t *testing.T) {
	b := newBench(t)
	b.boot(t)
	b.Options.Plan = func(context.Context, *config.Config) (string, error) {
		return "", errors.New("no disk matches")
	}
	if err := b.refused(t, Request{Document: b.base}, ErrMisfit); !strings.Contains(err.Error(), "no disk matches") {
		t.Errorf("refused with %v, want the plan's reason", err)
	}
	if b.Active() != nil || len(b.History().Entries) != 0 {
		t.Error("a configuration that can't be installed was stored")
	}
	b.Options.Plan = func(context.Context, *config.Config) (string, error) { return "install on /dev/sda\n", nil }
	got, err := b.Apply(t.Context(), Request{Document: b.base, DryRun: true})
	if err != nil || !strings.Contains(got.Details, "install on /dev/sda") || b.Active() != nil {
		t.Errorf("dry run = %q, %v, want the plan and nothing stored", got.Details, err)
	}

	// A reboot at once would forget what the disk does not have yet.
	if got, err := b.Apply(t.Context(), Request{Document: b.base, Mode: modeReboot, DryRun: true}); err != nil || got.Mode != modeNoReboot || strings.Contains(got.Details, "the node reboots") {
		t.Errorf("mode reboot before the installation = %+v, %v", got, err)
	}

	// While a disk takes its time the store answers.
	asked, answer, done := make(chan struct{}), make(chan struct{}), make(chan error)
	b.Options.Plan = func(context.Context, *config.Config) (string, error) {
		close(asked)
		<-answer
		return "", nil
	}
	go func() {
		_, err := b.Apply(t.Context(), Request{Document: b.base, DryRun: true})
		done <- err
	}()
	<-asked
	told := make(chan bool)
	go func() { told <- b.Unconfigured() }()
	select {
	case is := <-told:
		if !is {
			t.Error("Unconfigured while a plan is made = false")
		}
	case <-time.After(30 * time.Second):
		t.Error("Unconfigured waits for the plan")
	}
	// A second document waits, and is not read for a caller who has gone.
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	second := make(chan error, 1)
	go func() {
		_, err := b.Apply(brief, Request{Document: []byte("machine: {"), DryRun: true})
		second <- err
	}()
	select {
	case err := <-second:
		t.Errorf("a second document was read beside the first: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	<-brief.Done()
	close(answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-second; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second, whose caller has gone = %v", err)
	}
}
