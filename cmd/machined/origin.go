package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/acquire"
	"talos/internal/cmdline"
	"talos/internal/cmdline/redact"
	"talos/internal/configstore"
	"talos/internal/fetch"
	"talos/internal/layout"
	"talos/internal/metal"
	"talos/internal/netconfig"
	"talos/internal/platform"
	"talos/internal/resources/network"
)

// origin is what the machine is told before it has a configuration.
type origin struct {
	cmdline  string // the kernel's, for people to see; "" in a container, where it is the host's
	line     cmdline.Line
	wrong    []error // in the line, apart from what is told of the network and of the configuration's source
	platform *platform.Platform
	network  *netconfig.Platform // what the platform says of the network, once it is known
}

// findOrigin reads the command line, and finds out where the machine runs. A
// platform that is not known is no reason to stay down.
func (n *node) findOrigin(st state.State) (*origin, error) {
	o := &origin{network: netconfig.NewPlatform()}
	name := platform.Container
	if !n.boot.Container {
		text, err := os.ReadFile(cmdline.File)
		if err != nil {
			return nil, fmt.Errorf("read the kernel's command line: %w", err)
		}
		o.cmdline, o.line = redact.Text(strings.TrimSpace(string(text))), cmdline.Parse(string(text))
		name, o.wrong = o.line.Platform(), metal.WrongArguments(o.line)
	}
	child := fetch.Child{Start: n.reaper.Start, UID: layout.FetchUID}
	options := platform.Options{Cmdline: o.line, Fetch: child.Get, Machine: func(ctx context.Context) (platform.Machine, error) { return known(ctx, st) }}
	var err error
	if o.platform, err = platform.New(name, options); err != nil {
		n.log.Error("the machine is taken for one of platform metal", "err", err)
		o.wrong = append(o.wrong, err)
		o.platform, err = platform.New(platform.Metal, options)
	}
	return o, err
}

// known is what networkd has found out of the machine by now.
func known(ctx context.Context, st state.State) (platform.Machine, error) {
	var m platform.Machine
	link, err := safe.StateGetByID[*network.HardwareAddress](ctx, st, network.FirstID)
	if err == nil {
		m.HardwareAddr = link.TypedSpec().HardwareAddr.String()
	} else if !state.IsNotFoundError(err) {
		return m, err
	}
	name, err := safe.StateGetByID[*network.HostnameStatus](ctx, st, network.HostnameID)
	if err == nil {
		m.Hostname = name.TypedSpec().Hostname
	} else if !state.IsNotFoundError(err) {
		return m, err
	}
	return m, nil
}

// firstConfiguration gets one from where the machine comes from.
func (n *node) firstConfiguration(st state.State, cfg *configstore.Store) func(context.Context) error {
	return func(ctx context.Context) error {
		return acquire.Run(ctx, acquire.Options{
			State: st, Log: n.log, Platform: n.origin.platform, Store: cfg, Cmdline: n.origin.cmdline, Network: n.origin.network.Set,
		})
	}
}

// installArgs are those of the kernel's arguments that an installed machine
// needs too, and that its image does not have.
func (o *origin) installArgs() []string {
	if name := o.platform.Name(); name != platform.Metal {
		return []string{"talos.platform=" + name}
	}
	return nil
}
