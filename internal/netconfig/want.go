package netconfig

import (
	"talos/config"
	"talos/internal/resources/network"
)

// Wanted is what a configuration asks of the links, with the defaults for those
// that it does not mention.
type Wanted struct {
	Addresses []network.AddressSpecSpec
	Routes    []network.RouteSpecSpec
	DHCP      map[string]bool // links that ask for addresses
}

// Want reads what a configuration asks of the links there are, without doing it.
func Want(cfg *config.Config, links map[string]network.LinkStatusSpec) Wanted {
	out, _ := sources{config: cfg, links: all(links)}.want() // validated before: there are no problems
	w := Wanted{DHCP: map[string]bool{}}
	for _, a := range out.addresses {
		w.Addresses = append(w.Addresses, a)
	}
	for _, r := range out.routes {
		w.Routes = append(w.Routes, r)
	}
	for _, o := range out.operators {
		w.DHCP[o.LinkName] = true
	}
	return w
}

// Selected lists the links that a device entry is about, whether they are there
// or not.
func Selected(d config.Device, links map[string]network.LinkStatusSpec) []string {
	return selected(d, all(links))
}

// BondLinks lists the links that the bond of a device entry is made of, those
// that are named whether they are there or not.
func BondLinks(b config.Bond, links map[string]network.LinkStatusSpec) []string {
	return bondLinks(b, all(links))
}

func all(links map[string]network.LinkStatusSpec) []link {
	var out []link
	for name, status := range links {
		out = append(out, link{name: name, status: status})
	}
	return out
}

// Hardware tells links that are, or stand for, hardware from those that
// programs make, such as the pod network's.
func Hardware(name string, status network.LinkStatusSpec) bool {
	return ethernet(link{name: name, status: status})
}
