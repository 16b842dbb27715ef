// Package active reads the configuration in force, which controllers ask for at
// each of their events.
//
// It owns the decoding of the MachineConfig and remembers the last one; making
// that resource is internal/configstore's. It is safe for concurrent use, and
// what it returns is shared: nobody may change it.
package active

import (
	"bytes"
	"context"
	"sync"

	"github.com/cosi-project/runtime/pkg/controller"

	"talos/config"
	"talos/internal/reconcile"
	configres "talos/internal/resources/config"
)

// Input watches the configuration in force.
func Input() controller.Input {
	return reconcile.InputID[*configres.MachineConfig](configres.ActiveID)
}

// Config reads and decodes the configuration in force; none is nil.
func Config(ctx context.Context, r controller.Reader) (*config.Config, error) {
	mc, err := reconcile.Get[*configres.MachineConfig](ctx, r, configres.ActiveID)
	if err != nil || mc == nil {
		return nil, err
	}
	return decoded.load(mc.TypedSpec().Document)
}

// decoded remembers the last document.
var decoded memory

type memory struct {
	mu   sync.Mutex // guards the fields below
	text []byte
	cfg  *config.Config
}

func (m *memory) load(text []byte) (*config.Config, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cfg != nil && bytes.Equal(m.text, text) {
		return m.cfg, nil
	}
	cfg, _, err := config.Load("machine configuration", text)
	if err != nil {
		return nil, err
	}
	m.text, m.cfg = bytes.Clone(text), cfg
	return cfg, nil
}
