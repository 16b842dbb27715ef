package configstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"talos/api/machine"
	"talos/config"
	"talos/internal/configstore/fit"
	"talos/internal/configstore/journal"
)

// Times in which a configuration is to be confirmed.
const (
	defaultTry = time.Minute
	maxConfirm = 24 * time.Hour
	minConfirm = time.Second
)

// The modes, short.
const (
	modeAuto     = machine.ApplyConfigurationRequest_AUTO
	modeReboot   = machine.ApplyConfigurationRequest_REBOOT
	modeNoReboot = machine.ApplyConfigurationRequest_NO_REBOOT
	modeStaged   = machine.ApplyConfigurationRequest_STAGED
	modeTry      = machine.ApplyConfigurationRequest_TRY
)

// modeName is a mode as users write it.
func modeName(m machine.ApplyConfigurationRequest_Mode) string {
	return strings.ReplaceAll(strings.ToLower(m.String()), "_", "-")
}

// Request is what shall become of a document.
type Request struct {
	Document []byte
	Mode     machine.ApplyConfigurationRequest_Mode
	DryRun   bool          // only say what would be
	TryFor   time.Duration // of mode try; 0: a minute
	Confirm  time.Duration // go back unless confirmed in this time of being in force; 0: it is for good
	Base     uint64        // what the document was made from; 0: not known
	Force    bool          // although it does not fit, or another one waits for confirmation
	First    bool          // only if there is none yet

	By     string     // who asks
	Caller netip.Addr // where from; may be invalid
	Note   string     // where the document comes from
}

// limit is the time to confirm in; 0: there is nothing to confirm.
func (r Request) limit() time.Duration {
	switch {
	case r.Confirm > 0:
		return r.Confirm
	case r.Mode != modeTry:
		return 0
	case r.TryFor > 0:
		return r.TryFor
	}
	return defaultTry
}

// Result is what became of an application.
type Result struct {
	Mode     machine.ApplyConfigurationRequest_Mode // how it takes effect
	Details  string                                 // the same, for a person
	Warnings []string
	Diff     string // with secrets redacted
	Number   uint64 // of the configuration; 0 of a dry run
}

// plan is a Result before it is carried out.
type plan struct {
	Result
	Request
	cfg     *config.Config
	changed []string
	known   uint64 // the number that the document has already
	confirm bool   // it is the one that waits, and is kept by this
}

// Apply checks a document and, unless it is a dry run, makes it the
// configuration. What is refused changes nothing.
func (s *Store) Apply(ctx context.Context, r Request) (Result, error) {
	cfg, warnings, disks, err := s.examine(ctx, r.Document)
	if err != nil {
		return Result{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		return Result{}, s.starting()
	}
	p, err := s.plan(r, cfg)
	if err != nil {
		return Result{}, err
	}
	for _, w := range s.concerning(warnings) {
		p.Warnings = append(p.Warnings, w.String())
	}
	if err := s.fits(ctx, p); err != nil {
		return Result{}, err
	}
	if disks.err != nil {
		return Result{}, refuse(ErrMisfit, "machine.install: %w: nothing changed", disks.err)
	}
	if disks.text != "" {
		// The machine has the configuration in memory until the disk has it: a
		// reboot before would forget it.
		p.Result.Mode = modeNoReboot
		p.Details = "applied; the machine installs itself and starts from its disk\n" + disks.text
	}
	if r.DryRun {
		return p.Result, nil
	}
	return p.Result, s.carryOut(ctx, p)
}

// Offer makes a document that came from outside the first configuration, unless
// there is one by now. What the machine can't take is only warned of: a link
// may be late, and nobody is there to insist.
func (s *Store) Offer(ctx context.Context, document []byte, from string) error {
	result, err := s.Apply(ctx, Request{Document: document, Mode: modeAuto, Note: "from " + from, First: true, Force: true})
	for _, w := range result.Warnings {
		s.Log.Warn("configuration", "warning", w)
	}
	if errors.Is(err, ErrInvalid) && s.isNews(document) {
		s.Notify(&machine.ConfigLoadErrorEvent{Error: fmt.Sprintf("configuration from %s: %v", from, err)})
	}
	return err
}

// isNews tells a document from the one that it was asked about before: a bad
// one may be offered again and again.
func (s *Store) isNews(document []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.bad
	s.bad = journal.Digest(document)
	return s.bad != before
}

// head is the configuration that a new one is to be made from: what was applied
// last and not taken back, be it staged or tried.
func (s *Store) head() uint64 {
	if p := s.index.Pending; p != nil {
		return p.Number
	}
	return s.index.Boot
}

// waiting is the pending configuration if it is in force already. Nothing is
// lost with one that comes in force with the next boot only.
func (s *Store) waiting() *journal.Pending {
	if p := s.index.Pending; p != nil && p.Number == s.inForce {
		return p
	}
	return nil
}

// plan decides what becomes of a configuration, or refuses it.
func (s *Store) plan(r Request, cfg *config.Config) (*plan, error) {
	p := &plan{Request: r, cfg: cfg, Result: Result{Mode: r.Mode}}
	if r.First && s.active != nil {
		return nil, ErrTaken
	}
	if r.Base != 0 && r.Base != s.head() {
		return nil, refuse(ErrChanged, "the configuration was made from number %d, but by now number %d is there (%s): nothing changed; read that one and change it again",
			r.Base, s.head(), s.who(s.head()))
	}
	if err := s.limits(r); err != nil {
		return nil, err
	}
	p.known = s.known(r)
	if err := s.effect(p); err != nil {
		return nil, err
	}
	if w := s.waiting(); w != nil && !r.Force && (r.limit() == 0 || r.Mode == modeStaged) {
		if p.known != w.Number {
			return nil, refuse(ErrPending, "configuration %d (%s) waits for confirmation, and the node goes back to number %d without: "+
				"confirm it, roll back, wait, or give this one a time to be confirmed in too", w.Number, s.who(w.Number), w.Fallback)
		}
		p.confirm = true
		p.Details = "confirmed; " + p.Details
	}
	s.warn(p)
	return p, nil
}

// known is the number that a document has already, if it is the last one.
func (s *Store) known(r Request) uint64 {
	numbers := []uint64{s.head(), s.index.Boot}
	if r.Mode == modeTry { // what is staged stays so
		numbers = []uint64{s.inForce}
	}
	for _, n := range numbers {
		if e, ok := s.index.Find(n); ok && e.Digest == journal.Digest(r.Document) {
			return n
		}
	}
	return 0
}

func (s *Store) limits(r Request) error {
	limit := r.limit()
	switch {
	case limit == 0:
		return nil
	case s.active == nil:
		return refuse(ErrInvalid, "there is no configuration to go back to: the first one is applied in mode auto, without a time to confirm it in")
	case limit < minConfirm || limit > maxConfirm:
		return refuse(ErrInvalid, "time to confirm in: got %s, want %s to %s", limit, minConfirm, maxConfirm)
	}
	return nil
}

// who says who applied a configuration, and when.
func (s *Store) who(number uint64) string {
	e, _ := s.index.Find(number)
	by := e.By
	if by == "" {
		by = "somebody unnamed"
	}
	return fmt.Sprintf("applied by %s at %s", by, e.Time.UTC().Format(time.RFC3339))
}

// effect decides how a configuration takes effect.
func (s *Store) effect(p *plan) error {
	var need []string
	if s.active == nil {
		p.Diff = config.Diff(&config.Config{}, p.cfg)
	} else {
		if is, want := s.active.Machine.Type, p.cfg.Machine.Type; is != want {
			return refuse(ErrInvalid, "machine.type: got %q, but this node is a %s: a node keeps its type until it is reset", want, is)
		}
		p.changed = config.Changed(s.active, p.cfg)
		need = config.NeedReboot(p.changed)
		p.Diff = config.Diff(s.active, p.cfg)
	}
	switch p.Request.Mode {
	case modeStaged:
		if s.active == nil {
			return refuse(ErrInvalid, "mode staged: until the reboot there would be no configuration in force, and nobody could ask for the reboot: the first one is applied in mode auto")
		}
		p.Details = "stored; takes effect at the next reboot"
	case modeNoReboot, modeTry:
		if len(need) > 0 {
			return refuse(ErrInvalid, "mode %s: these keys need a reboot to take effect: %s; use mode auto or staged",
				modeName(p.Request.Mode), strings.Join(need, ", "))
		}
		p.Details = "applied without a reboot"
	case modeReboot:
		p.Details = "stored; the node reboots"
	default: // AUTO
		p.Result.Mode, p.Details = modeNoReboot, "applied without a reboot"
		if len(need) > 0 {
			p.Result.Mode = modeReboot
			p.Details = "stored; the node reboots for " + strings.Join(need, ", ")
		}
	}
	if s.active != nil && p.Diff == "" && p.Result.Mode != modeReboot {
		p.Details += "; nothing differs from what is in force"
	}
	if limit := p.limit(); limit > 0 && (p.known == 0 || p.known != s.inForce || s.waiting() != nil) {
		p.Details += fmt.Sprintf("; goes back unless confirmed within %s", limit)
	}
	return nil
}

// warn tells what an application ends that another one began.
func (s *Store) warn(p *plan) {
	staged := s.index.Boot
	if p.known == staged || staged == s.inForce || s.waiting() != nil || p.Request.Mode == modeTry {
		return
	}
	p.Warnings = append(p.Warnings, fmt.Sprintf("configuration %d (%s), which was to take effect at the next reboot, is replaced", staged, s.who(staged)))
}

// fits asks the machine.
func (s *Store) fits(ctx context.Context, p *plan) error {
	m, err := s.observe(ctx)
	if err != nil {
		return fmt.Errorf("look at the machine: %w", err)
	}
	m.Caller = p.Caller
	var bad []string
	lockout := false
	for _, f := range fit.Check(p.cfg, s.active, m) {
		switch {
		// Who brings the first configuration knows the machine by an address that nobody chose.
		case f.Grade == fit.Note, p.Force, f.Grade == fit.Lockout && (p.limit() > 0 || s.active == nil):
			p.Warnings = append(p.Warnings, f.String())
		default:
			bad = append(bad, f.String())
			lockout = lockout || f.Grade == fit.Lockout
		}
	}
	if len(bad) == 0 {
		return nil
	}
	hint := "apply it with force if you know better"
	if lockout {
		hint = "apply it with a time to confirm it in, so that the node goes back by itself, or with force if you know better"
	}
	return refuse(ErrMisfit, "%s: nothing changed; %s", strings.Join(bad, "\n"), hint)
}

// fate is what becomes of the machine's disks, or why that can't be done: the
// machine would wait for ever.
type fate struct {
	text string
	err  error
}

// examine reads a document and asks what becomes of the disks, before anything is
// stored, and for one caller at a time: a document takes memory, and a broken
// disk as long as it may. Meanwhile others ask us, whoever calls the API among
// them, so that s.mu must not be held.
func (s *Store) examine(ctx context.Context, document []byte) (*config.Config, []config.Warning, fate, error) {
	s.examining.Lock()
	defer s.examining.Unlock()
	if err := ctx.Err(); err != nil { // while it waited
		return nil, nil, fate{}, err
	}
	cfg, warnings, err := config.Load("configuration", document)
	if err != nil {
		return nil, nil, fate{}, refusal{err, ErrInvalid}
	}
	if s.Options.Plan == nil {
		return cfg, warnings, fate{}, nil
	}
	text, err := s.Options.Plan(ctx, cfg)
	return cfg, warnings, fate{strings.TrimSpace(text), err}, nil
}

// carryOut stores a configuration and puts it in force.
func (s *Store) carryOut(ctx context.Context, p *plan) error {
	if p.confirm {
		p.Number = p.known
		if err := s.keep(ctx, p.known); err != nil {
			return err
		}
		if p.Result.Mode == modeReboot {
			return s.restart(ctx)
		}
		return nil
	}
	x := s.next(p)
	if p.known == 0 {
		if err := s.journal.Put(p.Number, p.Document); err != nil {
			return fmt.Errorf("store configuration: %w", err)
		}
	}
	if err := s.commit(ctx, x); err != nil {
		return err
	}
	s.Log.Info("configuration stored", "number", p.Number, "mode", modeName(p.Result.Mode), "by", p.By, "note", p.Note, "confirm within", p.limit())
	switch p.Result.Mode {
	case modeStaged, modeReboot:
		s.setDeadline()
		if p.Result.Mode == modeReboot {
			return s.restart(ctx) // in force when the node is back, not for a moment before
		}
		return nil
	}
	err := s.publish(ctx, p.cfg, p.Document, p.Number)
	s.setDeadline()
	return err
}

// restart starts the machine again, for a configuration that is stored.
func (s *Store) restart(ctx context.Context) error {
	if err := s.Reboot(ctx); err != nil {
		return fmt.Errorf("the configuration is stored, it takes effect with the next reboot, which did not begin: %w", err)
	}
	return nil
}

// next is the index with a configuration applied; it gives the number.
func (s *Store) next(p *plan) journal.Index {
	x := s.index.Clone()
	x.Problem = ""
	fallback := s.inForce
	if w := s.waiting(); w != nil {
		fallback = w.Fallback
		if !w.Try {
			x.Boot = w.Fallback // what waited was not confirmed
		}
	}
	old := x.Pending
	x.Pending = nil
	if p.Number = p.known; p.known == 0 {
		p.Number = x.Last + 1
	}
	if old != nil && old.Number != p.Number {
		x = x.Mark(old.Number, journal.Discarded, fmt.Sprintf("replaced by %d before it was confirmed", p.Number))
	}
	if p.known == 0 {
		x = x.Add(journal.Entry{
			Time: time.Now(), By: p.By, Mode: modeName(p.Request.Mode), Note: p.Note, Changed: slices.Clone(p.changed), Digest: journal.Digest(p.Document),
		}, s.inForce, fallback)
	}
	if p.Result.Mode != modeTry {
		if staged := x.Boot; staged != p.Number && staged != s.inForce && staged != fallback && staged != 0 {
			x = x.Mark(staged, journal.Discarded, fmt.Sprintf("replaced by %d before it was in force", p.Number))
		}
		x.Boot = p.Number
	}
	if limit := p.limit(); limit > 0 && p.Number != fallback {
		x.Pending = &journal.Pending{Number: p.Number, Fallback: fallback, Timeout: limit, Try: p.Result.Mode == modeTry}
	}
	return x
}
