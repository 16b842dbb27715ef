package configstore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/cosi-project/runtime/pkg/safe"

	"talos/internal/configstore/fit"
	"talos/internal/resources/network"
)

// observe is what is known of the machine.
func (s *Store) observe(ctx context.Context) (fit.Machine, error) {
	m := fit.Machine{Links: map[string]network.LinkStatusSpec{}}
	links, err := safe.StateListAll[*network.LinkStatus](ctx, s.State)
	if err != nil {
		return m, err
	}
	for l := range links.All() {
		m.Links[l.Metadata().ID()] = *l.TypedSpec()
	}
	addresses, err := safe.StateListAll[*network.AddressStatus](ctx, s.State)
	if err != nil {
		return m, err
	}
	for a := range addresses.All() {
		m.Addresses = append(m.Addresses, fit.Address{Link: a.TypedSpec().LinkName, Prefix: a.TypedSpec().Address})
	}
	routes, err := safe.StateListAll[*network.RouteStatus](ctx, s.State)
	if err != nil {
		return m, err
	}
	for r := range routes.All() {
		m.Routes = append(m.Routes, *r.TypedSpec())
	}
	m.Disks, err = disks(s.Disks)
	return m, err
}

// disks lists the disks that a system can be installed to; nil if there is no
// folder to look into.
func disks(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := []string{}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, "loop") && !strings.HasPrefix(name, "ram") && !strings.HasPrefix(name, "zram") && !strings.HasPrefix(name, "sr") {
			names = append(names, name)
		}
	}
	return names, err
}
