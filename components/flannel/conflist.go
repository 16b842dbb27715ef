package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/klog/v2"
)

// leased is the content of flannel's subnet file. A family that is off has
// invalid prefixes.
type leased struct {
	networks []netip.Prefix // of the whole cluster
	subnets  []netip.Prefix // of this node, same order
	mtu      int
	masq     bool // flanneld masquerades; the bridge must not do it again
}

// parseSubnet reads the KEY=value lines of a subnet file.
func parseSubnet(r io.Reader) (leased, error) {
	var l leased
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			continue
		}
		var err error
		switch key {
		case "FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK":
			l.networks, err = appendPrefix(l.networks, value)
		case "FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET":
			l.subnets, err = appendPrefix(l.subnets, value)
		case "FLANNEL_MTU":
			l.mtu, err = strconv.Atoi(value)
		case "FLANNEL_IPMASQ":
			l.masq, err = strconv.ParseBool(value)
		}
		if err != nil {
			return leased{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	if err := lines.Err(); err != nil {
		return leased{}, err
	}
	if len(l.subnets) == 0 || l.mtu <= 0 {
		return leased{}, errors.New("no subnet or no MTU")
	}
	return l, nil
}

func appendPrefix(to []netip.Prefix, value string) ([]netip.Prefix, error) {
	p, err := netip.ParsePrefix(value)
	return append(to, p.Masked()), err
}

// conflist is the CNI configuration that flannel's own plugin would delegate
// to: one bridge that is the pods' gateway and knows their whole network, and
// port mappings.
func conflist(l leased, ipamDir string) ([]byte, error) {
	type dict = map[string]any
	var ranges, routes []any
	for _, s := range l.subnets {
		ranges = append(ranges, []any{dict{"subnet": s.String()}})
	}
	for _, n := range l.networks {
		routes = append(routes, dict{"dst": n.String()})
	}
	return json.MarshalIndent(dict{
		"cniVersion": "1.0.0",
		"name":       "cbr0",
		"plugins": []any{
			dict{
				"type":             "bridge",
				"bridge":           "cni0",
				"mtu":              l.mtu,
				"isDefaultGateway": true,
				"hairpinMode":      true,
				"ipMasq":           !l.masq,
				"ipMasqBackend":    "nftables",
				"ipam": dict{
					"type":    "host-local",
					"dataDir": ipamDir,
					"ranges":  ranges,
					"routes":  routes,
				},
			},
			dict{
				"type":         "portmap",
				"backend":      "nftables",
				"capabilities": dict{"portMappings": true},
			},
		},
	}, "", "  ")
}

// writeConflist makes confPath say what subnetPath says. The runtime watches
// the folder, so the file appears whole or not at all.
func writeConflist(subnetPath, confPath, ipamDir string) error {
	data, err := os.ReadFile(subnetPath)
	if err != nil {
		return err
	}
	l, err := parseSubnet(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: %w", subnetPath, err)
	}
	conf, err := conflist(l, ipamDir)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(confPath); err == nil && bytes.Equal(have, conf) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(confPath), 0o755); err != nil {
		return err
	}
	// Not ending in .conflist: the runtime must not take it for a network.
	temp := confPath + ".new"
	if err := os.WriteFile(temp, conf, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, confPath)
}

// followSubnet repeats writeConflist when the subnet file changes or when the
// configuration was removed, until ctx ends.
func followSubnet(ctx context.Context, subnetPath, confPath, ipamDir string) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := writeConflist(subnetPath, confPath, ipamDir); err != nil {
				klog.Errorf("CNI configuration: %v", err)
			}
		}
	}
}
