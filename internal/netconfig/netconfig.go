// Package netconfig says what the machine configuration, the platform and the
// kernel's command line want of the network, and gives the outcome to the
// machine: its host name and the files in /etc.
//
// It runs inside machined. It owns the layers default, cmdline, platform and
// configuration of namespace network-config, the host name of the UTS
// namespace, and /system/etc/{hostname,hosts,resolv.conf,pod-resolv.conf}; links, addresses
// and routes are networkd's. Decisions are pure functions; each controller is
// run by one runtime at a time.
package netconfig

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"golang.org/x/sys/unix"

	"talos/internal/configstore/active"
	"talos/internal/layout"
	"talos/internal/reconcile"
	"talos/internal/resources/files"
	"talos/internal/resources/network"
)

// Options are what tests bend. The zero value is right on a node.
type Options struct {
	Log         *slog.Logger       // slog.Default()
	Cmdline     string             // the kernel's command line; in container mode it is not ours, leave it empty
	PlatformDir string             // layout.PlatformDir
	EtcDir      string             // layout.EtcDir
	SetHostname func([]byte) error // sethostname(2)
}

func (o Options) filled() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.PlatformDir == "" {
		o.PlatformDir = layout.PlatformDir
	}
	if o.EtcDir == "" {
		o.EtcDir = layout.EtcDir
	}
	if o.SetHostname == nil {
		o.SetHostname = unix.Sethostname
	}
	return o
}

// Controllers makes all controllers of the package.
func Controllers(o Options) []controller.Controller {
	o = o.filled()
	return []controller.Controller{
		specController(o), featureController(o), platformController(o), defaultHostname(o), hostnameController(o), etcSpecs(o), etcFiles(o),
	}
}

// specTypes are the types of specs.
var specTypes = []resource.Type{
	network.AddressSpecType, network.RouteSpecType, network.LinkSpecType, network.OperatorSpecType, network.HostnameSpecType,
	network.ResolverSpecType, network.TimeServerSpecType,
}

// write makes owner's specs those of s.
func (out specs) write(ctx context.Context, r controller.Runtime, owner string) error {
	const in = network.ConfigNamespace
	for _, write := range []func() error{
		func() error {
			return reconcile.Output(ctx, r, owner, func(id resource.ID) *network.AddressSpec { return network.NewAddressSpec(in, id) }, out.addresses, nil)
		},
		func() error {
			return reconcile.Output(ctx, r, owner, func(id resource.ID) *network.RouteSpec { return network.NewRouteSpec(in, id) }, out.routes, nil)
		},
		func() error {
			return reconcile.Output(ctx, r, owner, func(id resource.ID) *network.LinkSpec { return network.NewLinkSpec(in, id) }, out.links, nil)
		},
		func() error {
			return reconcile.Output(ctx, r, owner, func(id resource.ID) *network.OperatorSpec { return network.NewOperatorSpec(in, id) }, out.operators, nil)
		},
		func() error {
			return reconcile.Output(ctx, r, owner, func(id resource.ID) *network.HostnameSpec { return network.NewHostnameSpec(in, id) }, out.hostnames, nil)
		},
		func() error {
			return reconcile.Output(ctx, r, owner, func(id resource.ID) *network.ResolverSpec { return network.NewResolverSpec(in, id) }, out.resolvers, nil)
		},
		func() error {
			return reconcile.Output(ctx, r, owner, func(id resource.ID) *network.TimeServerSpec { return network.NewTimeServerSpec(in, id) }, out.timeServers, nil)
		},
	} {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// specController writes what the configuration wants, and the defaults.
func specController(o Options) controller.Controller {
	c := &reconcile.Controller{ID: "network.ConfigController", Log: o.Log}
	c.In = []controller.Input{active.Input(), reconcile.Input[*network.LinkStatus]()}
	c.Shared = append([]resource.Type{network.StaticHostType}, specTypes...)
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		cfg, err := active.Config(ctx, r)
		if err != nil {
			return err
		}
		list, err := safe.ReaderList[*network.LinkStatus](ctx, r, network.NewLinkStatus("").Metadata())
		if err != nil {
			return err
		}
		var links []link
		for l := range list.All() {
			links = append(links, link{name: l.Metadata().ID(), status: *l.TypedSpec()})
		}
		want, problems := fromConfig(cfg, links)
		for _, p := range problems {
			o.Log.Warn("part of the network configuration is left out", "err", p)
		}
		if err := want.write(ctx, r, c.Name()); err != nil {
			return err
		}
		return reconcile.Output(ctx, r, c.Name(), network.NewStaticHost, want.staticHosts, nil)
	}
	return c
}

// platformController writes what the kernel's command line and the platform
// say. Neither changes while the machine runs.
func platformController(o Options) controller.Controller {
	c := &reconcile.Controller{ID: "network.PlatformController", Log: o.Log}
	c.Shared = specTypes
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		want, problems := cmdline(o.Cmdline)
		for _, p := range problems {
			o.Log.Warn("part of the kernel's command line is left out", "err", p)
		}
		name, err := os.ReadFile(filepath.Join(o.PlatformDir, "hostname"))
		if err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("read the platform's host name: %w", err)
		}
		if text := strings.TrimSpace(string(name)); text != "" {
			want.hostnames["platform/hostname"] = hostname(text, network.LayerPlatform)
		}
		return want.write(ctx, r, c.Name())
	}
	return c
}

// hostnameController gives the host name to the kernel.
func hostnameController(o Options) controller.Controller {
	c := &reconcile.Controller{ID: "network.HostnameController", Log: o.Log}
	c.In = []controller.Input{reconcile.Input[*network.HostnameStatus]()}
	current := ""
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		name, err := safe.ReaderGet[*network.HostnameStatus](ctx, r, network.NewHostnameStatus(network.HostnameID).Metadata())
		if state.IsNotFoundError(err) {
			return nil
		}
		if err != nil {
			return err
		}
		host := name.TypedSpec().Hostname
		if host == current {
			return nil
		}
		if err := o.SetHostname([]byte(host)); err != nil {
			return fmt.Errorf("sethostname %q: %w", host, err)
		}
		current = host
		o.Log.Info("host name set", "hostname", host)
		return nil
	}
	return c
}

// etcFiles writes what EtcFileSpecs say, and says so.
func etcFiles(o Options) controller.Controller {
	c := &reconcile.Controller{ID: "files.EtcFileController", Log: o.Log}
	c.In = []controller.Input{reconcile.Input[*files.EtcFileSpec]()}
	c.Shared = []resource.Type{files.EtcFileStatusType}
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		list, err := safe.ReaderList[*files.EtcFileSpec](ctx, r, files.NewEtcFileSpec("").Metadata())
		if err != nil {
			return err
		}
		want := map[resource.ID]files.EtcFileStatusSpec{}
		for f := range list.All() {
			path := filepath.Join(o.EtcDir, filepath.Clean("/"+f.Metadata().ID()))
			if err := writeFile(path, f.TypedSpec().Contents, os.FileMode(f.TypedSpec().Mode)); err != nil {
				return err
			}
			want[f.Metadata().ID()] = files.EtcFileStatusSpec{SpecVersion: f.Metadata().Version().String()}
		}
		return reconcile.Output(ctx, r, c.Name(), files.NewEtcFileStatus, want, nil)
	}
	return c
}
