package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"talos/config"
	"talos/internal/cmdline/redact"
	"talos/internal/fetch"
	"talos/internal/netsetup"
	"talos/internal/resources/runtime"
)

// cidata is the label of the volume that holds a machine's data.
const cidata = "cidata"

// maxMeta bounds what is not the configuration.
const maxMeta = 1 << 20

// noCloud is the data source of that name of cloud-init: user-data is the
// configuration. Its place is named by the kernel argument ds, or likewise by
// the machine's serial number, else it is a volume. vendor-data is left alone.
type noCloud struct {
	*Platform

	mu   sync.Mutex // guards last
	last *seed      // as it was read last
}

// seed is the machine's data.
type seed struct {
	user, meta, network []byte
	from                string
}

// meta is what of meta-data is used.
type metaData struct {
	InstanceID    string `yaml:"instance-id"`
	InstanceType  string `yaml:"instance-type"`
	LocalHostname string `yaml:"local-hostname"`
	Hostname      string `yaml:"hostname"`
	ProviderID    string `yaml:"provider-id"`
	Region        string `yaml:"region"`
	Zone          string `yaml:"zone"`
	AZ            string `yaml:"availability-zone"`
}

// configuration reads the seed anew.
func (n *noCloud) configuration(ctx context.Context) ([]byte, string, error) {
	s, err := n.read(ctx)
	if err != nil {
		return nil, "", err
	}
	if len(bytes.TrimSpace(s.user)) == 0 {
		return nil, s.from, nil
	}
	return s.user, s.from + ", user-data", nil
}

func (n *noCloud) network(ctx context.Context) (netsetup.Network, error) {
	s, err := n.seed(ctx)
	if err != nil {
		return netsetup.Network{}, err
	}
	setup, err := parseNetworkConfig(s.network)
	if err != nil {
		return netsetup.Network{}, fmt.Errorf("%s, network-config: %w", s.from, err)
	}
	m, err := n.meta(s)
	if err != nil {
		setup.Problems = append(setup.Problems, err.Error())
	}
	if name := m.hostname(); name != "" {
		if err := netsetup.CheckHostname(name); err != nil {
			setup.Problems = append(setup.Problems, fmt.Sprintf("%s, meta-data: host name: %v", s.from, err))
		} else {
			setup.Hostname = name
		}
	}
	return setup, nil
}

func (n *noCloud) metadata(ctx context.Context) (runtime.PlatformMetadataSpec, error) {
	s, err := n.seed(ctx)
	if err != nil {
		return runtime.PlatformMetadataSpec{}, err
	}
	m, err := n.meta(s)
	spec := runtime.PlatformMetadataSpec{
		Hostname: m.hostname(), InstanceID: m.InstanceID, InstanceType: m.InstanceType, ProviderID: m.ProviderID, Region: m.Region, Zone: m.Zone,
	}
	if spec.Zone == "" {
		spec.Zone = m.AZ
	}
	return spec, err
}

// meta reads meta-data; what the kernel argument says comes first.
func (n *noCloud) meta(s seed) (metaData, error) {
	var m metaData
	if err := yaml.Unmarshal(s.meta, &m); err != nil {
		return metaData{}, fmt.Errorf("%s, meta-data: %w", s.from, err)
	}
	where, _ := n.source()
	if where.instance != "" {
		m.InstanceID = where.instance
	}
	if where.hostname != "" {
		m.LocalHostname = where.hostname
	}
	return m, nil
}

func (m metaData) hostname() string {
	if m.LocalHostname != "" {
		return m.LocalHostname
	}
	return m.Hostname
}

// seed is what was read last, or is read now.
func (n *noCloud) seed(ctx context.Context) (seed, error) {
	n.mu.Lock()
	last := n.last
	n.mu.Unlock()
	if last != nil {
		return *last, nil
	}
	return n.read(ctx)
}

func (n *noCloud) read(ctx context.Context) (seed, error) {
	where, err := n.source()
	if err != nil {
		return seed{}, err
	}
	var s seed
	if where.from != nil {
		s, err = n.fromSeedServer(ctx, where.from)
	} else {
		s, err = n.fromCidata(ctx)
	}
	if err != nil {
		return seed{}, err
	}
	n.mu.Lock()
	n.last = &s
	n.mu.Unlock()
	return s, nil
}

func (n *noCloud) fromCidata(ctx context.Context) (seed, error) {
	const user, meta, network = "user-data", "meta-data", "network-config"
	files, err := n.Volumes.Read(ctx, cidata, File{user, config.MaxSize, true}, File{meta, maxMeta, true}, File{network, maxMeta, true})
	return seed{from: "the volume " + cidata, user: files[user], meta: files[meta], network: files[network]}, err
}

func (n *noCloud) fromSeedServer(ctx context.Context, base *url.URL) (seed, error) {
	s := seed{from: base.Redacted()}
	for _, f := range []struct {
		into     *[]byte
		name     string
		optional bool
	}{{&s.user, "user-data", false}, {&s.meta, "meta-data", true}, {&s.network, "network-config", true}} {
		u := base.JoinPath(f.name)
		data, err := n.Fetch(ctx, u, config.MaxSize)
		if err != nil && (!f.optional || !fetch.Missing(err)) {
			return seed{}, fmt.Errorf("configuration server %s: %w", u.Redacted(), err)
		}
		*f.into = data
	}
	return s, nil
}

// dataSource is what a kernel argument or a serial number says.
type dataSource struct {
	from               *url.URL // nil: a volume
	hostname, instance string
}

// source finds out where the seed is.
func (n *noCloud) source() (dataSource, error) {
	for _, s := range []struct{ who, text string }{
		{"kernel argument ds=", n.Cmdline.DataSource()}, {"the machine's serial number ", strings.TrimPrefix(n.identity().serial, "ds=")},
	} {
		ds, ok, err := n.parseSource(s.text)
		if err != nil {
			return ds, wrong("%s%s: %w", s.who, redact.Text(s.text), err)
		}
		if ok {
			return ds, nil
		}
	}
	return dataSource{}, nil
}

// parseSource reads nocloud;s=http://server/;h=name;i=instance. Other data
// sources are not for us.
func (n *noCloud) parseSource(text string) (ds dataSource, ours bool, err error) {
	name, rest, _ := strings.Cut(text, ";")
	if name != "nocloud" && name != "nocloud-net" {
		return ds, false, nil
	}
	for part := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "s", "seedfrom":
			if ds.from, err = n.seedURL(value); err != nil {
				return ds, true, err
			}
		case "h", "local-hostname":
			ds.hostname = value
		case "i", "instance-id":
			ds.instance = value
		}
	}
	return ds, true, nil
}

// seedURL is a server's folder; __dmi.name__ in it stands for what the firmware
// says.
func (n *noCloud) seedURL(text string) (*url.URL, error) {
	all := n.identity().all
	var b strings.Builder
	for rest := text; ; {
		before, after, found := strings.Cut(rest, "__dmi.")
		b.WriteString(before)
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "__")
		if !closed {
			return nil, fmt.Errorf("__dmi.%s has no end", after)
		}
		value, ok := all[name]
		if !ok {
			return nil, fmt.Errorf("the firmware tells no %s", name)
		}
		b.WriteString(url.PathEscape(value))
		rest = tail
	}
	u, err := url.Parse(b.String())
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q: want http:// or https://", u.Redacted())
	}
	return u, nil
}
