package configstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"talos/config"
	"talos/internal/configstore/journal"
)

// maxBoots is how often a node boots with a configuration that nobody has
// confirmed; one that brings it down again and again is left behind by then.
const maxBoots = 3

// boot is the decision of one boot: the index to go on with, and what was wrong.
type boot struct {
	*Store
	index   journal.Index
	changed bool
	stored  bool // STATE holds a configuration, or what is left of one
	trouble []string
}

// begin finds the configuration of this boot: on STATE, else one that is at hand.
// Only where there is neither, others may bring one.
func (s *Store) begin(ctx context.Context) error {
	if err := s.know(ctx); err != nil {
		return err
	}
	found, err := s.load(ctx)
	if err == nil && !found && s.First != nil {
		found = s.first(ctx)
	}
	if err == nil && !found {
		err = s.offer(ctx)
	}
	if err != nil {
		return err
	}
	s.begun.Do(func() { close(s.ready) })
	return nil
}

// first takes what is at hand, and says whether that is a configuration. What
// is wrong with it is found again, and told, by who asks for it next.
func (s *Store) first(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, firstTimeout)
	defer cancel()
	document, from, err := s.First(ctx)
	if err == nil && document != nil {
		err = s.Offer(ctx, document, from)
	}
	if err != nil {
		s.Log.Warn("no configuration is at hand", "err", err)
	}
	return s.Active() != nil
}

// firstTimeout bounds what is at hand.
const firstTimeout = 10 * time.Second

// load finds the configuration that is on STATE at boot. found is false when
// there is none. If what is stored can't be used, the last good one is in force.
func (s *Store) load(ctx context.Context) (found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		return s.active != nil, nil
	}
	b := &boot{Store: s}
	b.read()
	b.pending()
	cfg, document := b.choose()
	if len(b.trouble) > 0 {
		text := strings.Join(b.trouble, "; ")
		s.trouble(text)
		b.index.Problem, b.changed = text, true
	}
	s.index = b.index
	if b.changed {
		// A STATE that can't be written to must not keep the node down.
		if err := s.journal.Commit(b.index); err != nil {
			s.Log.Error("store configuration", "err", err)
		}
	}
	if cfg == nil {
		s.show(ctx)
		s.loaded, s.stored = true, b.stored
		return false, nil
	}
	if err := s.publish(ctx, cfg, document, b.index.Boot); err != nil {
		return true, err
	}
	s.show(ctx)
	s.loaded = true
	s.setDeadline()
	s.Log.Info("configuration in force", "number", b.index.Boot, "type", cfg.Machine.Type, "pending", b.index.Pending != nil)
	return true, nil
}

// read reads the index and takes in a document that is not in it yet.
func (b *boot) read() {
	index, err := b.journal.Read()
	b.index, b.stored = index, err != nil || len(index.Entries) > 0
	if err != nil {
		b.trouble, b.changed = append(b.trouble, err.Error()), true
	}
	switch data, err := b.journal.Copy(); {
	case err == nil:
		b.stored = true
		b.adopt(data)
	case !errors.Is(err, fs.ErrNotExist):
		b.stored = true
		b.trouble = append(b.trouble, err.Error())
	case len(b.index.Entries) > 0:
		b.changed = true // writes the copy
	}
}

// adopt looks at the copy of the document to boot with. One that no entry knows
// was put there by somebody else: an earlier version, a person.
func (b *boot) adopt(data []byte) {
	digest := journal.Digest(data)
	for _, e := range b.index.Entries {
		if e.Digest == digest {
			b.changed = b.changed || e.Number != b.index.Boot // the power went before the copy was written
			return
		}
	}
	b.take(data)
}

// take makes a document that was found on STATE the one to boot with, if it is
// a good one.
func (b *boot) take(data []byte) {
	const note = "found on STATE"
	b.changed = true
	if _, _, err := config.Load(b.File, data); err != nil {
		b.trouble = append(b.trouble, fmt.Sprintf("configuration %s: %v", b.File, err))
		return
	}
	x := b.index
	if p := x.Pending; p != nil {
		x = x.Mark(p.Number, journal.Discarded, "another one was "+note)
		x.Pending = nil
	}
	x = x.Add(journal.Entry{Time: time.Now(), Note: note, Digest: journal.Digest(data)})
	if err := b.journal.Put(x.Last, data); err != nil {
		b.trouble = append(b.trouble, err.Error())
		return
	}
	x.Boot = x.Last
	b.index = x
}

// pending counts the boots of a configuration that waits for confirmation, and
// leaves it behind when there were too many.
func (b *boot) pending() {
	p := b.index.Pending
	switch {
	case p == nil:
		return
	case p.Try:
		b.index = b.index.Mark(p.Number, journal.Reverted, "the node rebooted while it was tried")
		b.index.Pending = nil
	case p.Boots >= maxBoots:
		b.Log.Warn("configuration left behind: booted too often without confirmation", "number", p.Number, "boots", p.Boots, "back to", p.Fallback)
		b.index = back(b.index, fmt.Sprintf("not confirmed in %d boots", p.Boots))
	default:
		b.index = b.index.Clone()
		b.index.Pending.Boots++
	}
	b.changed = true
}

// back is the index after going back from the pending configuration.
func back(x journal.Index, why string) journal.Index {
	p := *x.Pending
	x = x.Mark(p.Number, journal.Reverted, why)
	x.Pending = nil
	if !p.Try {
		x.Boot = p.Fallback
	}
	return x
}

// choose reads the configuration to boot with, or the last one that is good.
func (b *boot) choose() (*config.Config, []byte) {
	for b.index.Boot != 0 {
		e, ok := b.index.Find(b.index.Boot)
		var err error
		if ok {
			cfg, document, readErr := b.readEntry(e)
			if err = readErr; err == nil {
				return cfg, document
			}
			b.trouble = append(b.trouble, fmt.Sprintf("configuration %d: %v", e.Number, err))
			b.index = b.index.Mark(e.Number, journal.Damaged, "it could not be read")
		}
		b.changed = true
		if p := b.index.Pending; p != nil && p.Number == e.Number {
			b.index.Boot, b.index.Pending = p.Fallback, nil
			continue
		}
		last, _ := b.index.LastGood(e.Number)
		b.index.Boot = last.Number
	}
	return nil, nil
}

// readEntry reads and decodes one configuration.
func (s *Store) readEntry(e journal.Entry) (*config.Config, []byte, error) {
	document, err := s.journal.Document(e)
	if err != nil {
		return nil, nil, err
	}
	cfg, warnings, err := config.Load(fmt.Sprintf("configuration %d", e.Number), document)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range s.concerning(warnings) {
		s.Log.Warn("configuration", "warning", w.String())
	}
	return cfg, document, nil
}

// concerning leaves out the warnings that have no meaning for this node.
func (s *Store) concerning(warnings []config.Warning) []config.Warning {
	if s.Disks == "" {
		return warnings
	}
	return config.OnMachine(warnings)
}
