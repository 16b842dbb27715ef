// Package network holds the resources of the network: what each layer of
// configuration wants (ConfigNamespace), what is applied and what the kernel
// has (Namespace). machined writes the configuration's layers, networkd its own
// and everything in Namespace.
package network

import (
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("network")

// ConfigNamespace holds specs as each layer wants them, before they are merged
// into Namespace; an id there starts with its layer, such as configuration/eth0.
const ConfigNamespace = resource.Namespace("network-config")

// The ids of resources of which there is one.
const (
	HostnameID   = resource.ID("hostname")
	ResolverID   = resource.ID("resolvers")
	TimeServerID = resource.ID("timeservers")
	StatusID     = resource.ID("status")
	FirstID      = resource.ID("first")  // HardwareAddress
	HostDNSID    = resource.ID("config") // HostDNSConfig
	SortID       = resource.ID("config") // NodeAddressSortAlgorithm
)

// The ids of NodeAddress.
const (
	NodeAddressDefaultID = resource.ID("default")
	NodeAddressCurrentID = resource.ID("current")
	NodeAddressRoutedID  = resource.ID("routed")
)

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewAddressSpec(Namespace, "")),
		object.Define(NewAddressStatus("")),
		object.Define(NewDNSResolveCache("")),
		object.Define(NewDNSUpstream("")),
		object.Define(NewHardwareAddress("")),
		object.Define(NewHostDNSConfig("")),
		object.Define(NewHostnameSpec(Namespace, "")),
		object.Define(NewHostnameStatus("")),
		object.Define(NewLinkSpec(Namespace, "")),
		object.Define(NewLinkStatus("")),
		object.Define(NewNodeAddress("")),
		object.Define(NewNodeAddressSortAlgorithm("")),
		object.Define(NewOperatorSpec(Namespace, "")),
		object.Define(NewResolverSpec(Namespace, "")),
		object.Define(NewResolverStatus("")),
		object.Define(NewRouteSpec(Namespace, "")),
		object.Define(NewRouteStatus("")),
		object.Define(NewStaticHost("")),
		object.Define(NewNetworkStatus("")),
		object.Define(NewTimeServerSpec(Namespace, "")),
		object.Define(NewTimeServerStatus("")),
	}
}
