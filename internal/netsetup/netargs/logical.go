package netargs

import (
	"fmt"
	"strconv"
	"strings"

	"talos/internal/netsetup"
)

// vlan reads vlan=name:device. The name tells the number in one of the ways of
// systemd and dracut: vlan5, vlan0005, eth0.5, eth0.0005.
func vlan(n *netsetup.Network, value string) error {
	name, parent, ok := strings.Cut(value, ":")
	if !ok {
		return fmt.Errorf("want name:device")
	}
	if err := device(name); err != nil {
		return err
	}
	over, err := match(parent)
	if err != nil {
		return err
	}
	digits := strings.TrimPrefix(name, "vlan")
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		digits = name[i+1:]
	}
	id, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || id < 1 || id > 4094 {
		return fmt.Errorf("name %q tells no number of a VLAN, 1 to 4094: want one like vlan5 or %s.5", name, parent)
	}
	n.Links = append(n.Links, netsetup.Link{
		Match: netsetup.Match{Name: name}, VLAN: &netsetup.VLAN{ID: uint16(id), Parent: over},
	})
	return nil
}

// bond reads bond=name[:links[:options[:mtu]]], lists with commas.
func bond(n *netsetup.Network, value string) error {
	fields, err := split(value)
	if err != nil {
		return err
	}
	if len(fields) > 4 {
		return fmt.Errorf("want name:links:options:mtu, got %d parts", len(fields))
	}
	fields = append(fields, make([]string, 4-len(fields))...)
	name, links := fields[0], fields[1]
	if name == "" {
		name = "bond0"
	}
	if links == "" {
		links = "eth0,eth1"
	}
	b := &netsetup.Bond{}
	link := netsetup.Link{Match: netsetup.Match{Name: name}, Bond: b}
	if err := device(name); err != nil {
		return err
	}
	for part := range strings.SplitSeq(links, ",") {
		m, err := match(part)
		if err != nil {
			return err
		}
		b.Links = append(b.Links, m)
	}
	options, err := bondOptions(fields[2])
	if err != nil {
		return err
	}
	var problems []error
	if b.How, problems = netsetup.ParseBond(options); len(problems) > 0 {
		return problems[0]
	}
	if fields[3] != "" {
		if link.MTU, err = parseMTU(fields[3]); err != nil {
			return err
		}
	}
	n.Links = append(n.Links, link)
	return nil
}

// bondOptions reads key=value,key=value. A list of addresses has semicolons.
func bondOptions(text string) (map[string]string, error) {
	options := map[string]string{}
	if text == "" {
		return options, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("bond option %q: want key=value", part)
		}
		options[key] = value
	}
	return options, nil
}
