// Package platform is what a machine is told by where it runs, before it has a
// configuration: that configuration, its first network settings, its name.
// There are three platforms: metal, where all comes from the kernel's command
// line and what that points to; nocloud, where a volume or a server holds it in
// the way of cloud images; container, where the cluster's supervisor hands it in.
//
// Every call asks once and says what came of it. Asking again, and what to do
// with an answer, is the caller's (package acquire). What comes from outside is
// bounded, and checked no further than its form; that a configuration is a
// good one is found out by package configstore. Safe for concurrent use.
package platform

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"talos/internal/cmdline"
	"talos/internal/layout"
	"talos/internal/netsetup"
	"talos/internal/resources/runtime"
)

// The names of platforms, as talos.platform has them.
const (
	Metal     = "metal"
	NoCloud   = "nocloud"
	Container = "container"
)

// Options are what a platform needs, and what tests bend.
type Options struct {
	Cmdline cmdline.Line // of the kernel; in a container it is not ours, leave it empty

	// Machine tells what the network knows of the machine by now, for
	// ${mac} and ${hostname}; what is not known yet is empty.
	Machine func(ctx context.Context) (Machine, error)

	Dir     string   // of a container's platform: layout.PlatformDir
	DMI     string   // where the firmware's identity is: /sys/class/dmi/id
	Volumes *Volumes // the machine's own

	// Fetch asks a server for what is at a URL, of at most limit bytes; see package
	// fetch. Its errors do not repeat the URL. In a container nobody is asked.
	Fetch func(ctx context.Context, u *url.URL, limit int) ([]byte, error)
}

// Machine is how a machine may be known to a configuration server.
type Machine struct {
	HardwareAddr string // of the first link
	Hostname     string
}

// Platform is where the machine runs.
type Platform struct {
	Options
	name string
	own  source

	mu       sync.Mutex // guards firmware
	firmware *firmware
}

// source is what differs between platforms.
type source interface {
	configuration(ctx context.Context) (document []byte, from string, err error)
	network(ctx context.Context) (netsetup.Network, error)
	metadata(ctx context.Context) (runtime.PlatformMetadataSpec, error)
}

// New makes the platform of a name. "" is metal.
func New(name string, o Options) (*Platform, error) {
	if o.Dir == "" {
		o.Dir = layout.PlatformDir
	}
	if o.DMI == "" {
		o.DMI = "/sys/class/dmi/id"
	}
	if o.Volumes == nil {
		o.Volumes = &Volumes{}
	}
	if o.Fetch == nil {
		o.Fetch = func(context.Context, *url.URL, int) ([]byte, error) {
			return nil, errors.New("this node asks no server")
		}
	}
	if o.Machine == nil {
		o.Machine = func(context.Context) (Machine, error) { return Machine{}, nil }
	}
	p := &Platform{Options: o, name: name}
	switch name {
	case Metal, "":
		p.name, p.own = Metal, metal{p}
	case NoCloud:
		p.own = &noCloud{Platform: p}
	case Container:
		p.own = container{p}
	default:
		return nil, fmt.Errorf("kernel argument talos.platform=%s: known are %s and %s", name, Metal, NoCloud)
	}
	return p, nil
}

// Name is the platform's.
func (p *Platform) Name() string { return p.name }

// Configuration asks for the machine's configuration, and says where it is
// from. The kernel's arguments come before the platform's own. No document and
// no error mean that there is none, and that asking again is of no use. An
// error with a method Permanent that returns true will not go away by itself.
func (p *Platform) Configuration(ctx context.Context) (document []byte, from string, err error) {
	if document, from, err = p.argument(ctx); document != nil || err != nil {
		return document, from, err
	}
	return p.own.configuration(ctx)
}

// AtHand is the configuration where it needs nobody's answer: in the folder of a
// container, on the command line itself. Elsewhere it is nil.
func (p *Platform) AtHand(ctx context.Context) (document []byte, from string, err error) {
	if p.Cmdline.Config() != "" || p.Cmdline.InlineConfig() == "" && p.name != Container {
		return nil, "", nil
	}
	return p.Configuration(ctx)
}

// Network asks for what the platform says of the network.
func (p *Platform) Network(ctx context.Context) (netsetup.Network, error) { return p.own.network(ctx) }

// Metadata asks for what the platform says of the machine.
func (p *Platform) Metadata(ctx context.Context) (runtime.PlatformMetadataSpec, error) {
	s, err := p.own.metadata(ctx)
	s.Platform = p.name
	return s, err
}

// mistake is an error that only a person can mend.
type mistake struct{ error }

// Permanent says that asking again is of no use.
func (mistake) Permanent() bool { return true }

func (m mistake) Unwrap() error { return m.error }

func wrong(format string, args ...any) error { return mistake{fmt.Errorf(format, args...)} }

// metal has nothing of its own to tell.
type metal struct{ *Platform }

func (metal) configuration(context.Context) ([]byte, string, error) { return nil, "", nil }

func (metal) network(context.Context) (netsetup.Network, error) { return netsetup.Network{}, nil }

func (p metal) metadata(context.Context) (runtime.PlatformMetadataSpec, error) {
	return runtime.PlatformMetadataSpec{Hostname: p.Cmdline.Hostname(), InstanceID: p.identity().uuid}, nil
}
