package boot

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// loopbackUp brings lo up, as the kernel leaves it down in a new network
// namespace: machined's own sockets are on it, before networkd runs.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find link lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set link lo up: %w", err)
	}
	return nil
}
