// Package fit says what a machine can't take of a configuration: links, disks
// and addresses that are not there, and what would cut off the one who applies
// it.
//
// Check is a pure function over the configuration, the one in force, and what
// is known of the machine. It finds what a change brings, and never what was
// wrong before: a machine that lost a card can still be configured. Whether a
// document is right in itself is package config's.
package fit

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"talos/config"
	"talos/internal/netconfig"
	"talos/internal/resources/network"
)

// Grade is how bad a finding is.
type Grade int

// The grades.
const (
	Note    Grade = iota // to be told
	Lockout              // nobody may reach the machine after it
	Misfit               // it can't work here
)

// Finding is one thing that is wrong with a configuration on this machine.
type Finding struct {
	Grade Grade
	Key   string // of the configuration
	Text  string
}

// String shows the key and what is wrong with it.
func (f Finding) String() string { return f.Key + ": " + f.Text }

// Address is one that a link has.
type Address struct {
	Link   string
	Prefix netip.Prefix
}

// Machine is what is known of the machine.
type Machine struct {
	Links     map[string]network.LinkStatusSpec // none: not known yet
	Addresses []Address
	Routes    []network.RouteStatusSpec
	Disks     []string   // names such as sda; nil: not known
	Caller    netip.Addr // who applies the configuration; may be invalid
}

// Check lists what is wrong with a configuration, in the order of its keys.
// before is the one in force, nil if there is none.
func Check(cfg, before *config.Config, m Machine) []Finding {
	found := check(cfg, before, m)
	if before != nil {
		old := check(before, before, m)
		found = slices.DeleteFunc(found, func(f Finding) bool { return slices.Contains(old, f) })
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Text, b.Text)) })
	return slices.Compact(found)
}

// checker collects findings.
type checker struct {
	Machine
	cfg, before *config.Config // before is never nil
	now, then   netconfig.Wanted
	future      []Address       // addresses that the machine will have, as far as is known
	unknown     map[string]bool // links that get addresses nobody knows yet
	found       []Finding
}

func (c *checker) add(grade Grade, key, text string) {
	c.found = append(c.found, Finding{grade, key, text})
}

func check(cfg, before *config.Config, m Machine) []Finding {
	c := &checker{Machine: m, cfg: cfg, before: before}
	if before == nil {
		c.before = &config.Config{}
	}
	c.disks()
	c.authority()
	c.names()
	if len(m.Links) > 0 {
		c.now, c.then = netconfig.Want(c.before, m.Links), netconfig.Want(cfg, m.Links)
		c.foresee()
		c.interfaces()
		c.addresses()
		c.gateways()
		c.subnets()
		c.endpoint()
		c.caller()
	}
	return c.found
}

// foresee finds the addresses that the machine will have.
func (c *checker) foresee() {
	c.unknown = map[string]bool{}
	for _, a := range c.then.Addresses {
		c.future = append(c.future, Address{a.LinkName, a.Address})
	}
	for _, a := range c.Addresses {
		if !slices.Contains(c.future, a) && c.stays(a) {
			c.future = append(c.future, a)
		}
	}
	for link := range c.then.DHCP {
		if !c.now.DHCP[link] {
			c.unknown[link] = true
		}
	}
	slices.SortFunc(c.future, func(a, b Address) int {
		return strings.Compare(a.Link+" "+a.Prefix.String(), b.Link+" "+b.Prefix.String())
	})
}

// stays says whether an address that the new configuration does not name will
// still be there: what DHCP gave stays with DHCP, what others set stays anyhow.
func (c *checker) stays(a Address) bool {
	switch {
	case static(c.now, a):
		return false
	case c.now.DHCP[a.Link]:
		return c.then.DHCP[a.Link]
	}
	return true
}

func static(w netconfig.Wanted, a Address) bool {
	return slices.ContainsFunc(w.Addresses, func(s network.AddressSpecSpec) bool {
		return s.LinkName == a.Link && s.Address == a.Prefix
	})
}

// on are the addresses that a link will have.
func (c *checker) on(link string) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range c.future {
		if a.Link == link {
			out = append(out, a.Prefix)
		}
	}
	return out
}

// links names the machine's links that can be configured.
func (c *checker) links() string {
	var names []string
	for name, status := range c.Links {
		if netconfig.Hardware(name, status) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
