// Package netconfig says what the machine configuration, the platform and the
// kernel's command line want of the network, and gives the outcome to the
// machine: its host name and the files in /etc.
//
// It runs inside machined. It owns the layers default, cmdline, platform and
// configuration of namespace network-config, the diagnostics of what can't be
// used in them, the host name of the UTS
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
	"slices"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"golang.org/x/sys/unix"

	"talos/internal/cmdline"
	"talos/internal/configstore/active"
	"talos/internal/layout"
	"talos/internal/netsetup/netargs"
	"talos/internal/reconcile"
	"talos/internal/resources/files"
	"talos/internal/resources/network"
	"talos/internal/resources/runtime"
)

// Options are what tests bend. The zero value is right on a node.
type Options struct {
	Log         *slog.Logger       // slog.Default()
	Cmdline     cmdline.Line       // the kernel's command line; in container mode it is not ours, leave it empty
	Wrong       []error            // what others found wrong in it: told beside what is wrong of the network
	Platform    *Platform          // what the platform says, now or later
	EtcDir      string             // layout.EtcDir
	SetHostname func([]byte) error // sethostname(2)
}

func (o Options) filled() Options {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Platform == nil {
		o.Platform = NewPlatform()
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
		specController(o), featureController(o), defaultHostname(o), hostnameController(o), etcSpecs(o), etcFiles(o),
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

// specController writes what each layer but that of the operators wants.
func specController(o Options) controller.Controller {
	c := &reconcile.Controller{ID: "network.ConfigController", Log: o.Log, Ticks: o.Platform.news}
	c.In = []controller.Input{active.Input(), reconcile.Input[*network.LinkStatus]()}
	c.Shared = append([]resource.Type{network.StaticHostType, runtime.DiagnosticType}, specTypes...)
	told := ""
	c.Step = func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
		cfg, err := active.Config(ctx, r)
		if err != nil {
			return err
		}
		list, err := safe.ReaderList[*network.LinkStatus](ctx, r, network.NewLinkStatus("").Metadata())
		if err != nil {
			return err
		}
		in := sources{config: cfg, platform: o.Platform.get()}
		for l := range list.All() {
			in.links = append(in.links, link{name: l.Metadata().ID(), status: *l.TypedSpec()})
		}
		var arguments []error
		in.cmdline, arguments = netargs.Read(o.Cmdline)
		want, problems := in.want()
		if text := fmt.Sprint(arguments, problems); text != told {
			told = text
			for _, p := range slices.Concat(arguments, problems) {
				o.Log.Warn("part of the network settings is left out", "err", p)
			}
		}
		if err := want.write(ctx, r, c.Name()); err != nil {
			return err
		}
		if err := reconcile.Output(ctx, r, c.Name(), network.NewStaticHost, want.staticHosts, nil); err != nil {
			return err
		}
		return reconcile.Output(ctx, r, c.Name(), runtime.NewDiagnostic, diagnose(slices.Concat(o.Wrong, arguments), problems), nil)
	}
	return c
}

// diagnose tells people what was left out.
func diagnose(arguments, problems []error) map[resource.ID]runtime.DiagnosticSpec {
	out := map[resource.ID]runtime.DiagnosticSpec{}
	for id, about := range map[resource.ID]struct {
		message string
		list    []error
	}{
		"kernel-arguments": {"kernel arguments are not usable and left out", arguments},
		"network-settings": {"part of the network settings is left out", problems},
	} {
		if len(about.list) == 0 {
			continue
		}
		s := runtime.DiagnosticSpec{Message: about.message}
		for _, p := range about.list {
			s.Details = append(s.Details, p.Error())
		}
		out[id] = s
	}
	return out
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
