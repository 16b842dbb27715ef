package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Offsets in packets.
const (
	ipSource, ipDestination, ipLen = 12, 16, 4
	portSource, portDestination    = 0, 2
	portLen                        = 2
	macLen                         = 6
)

// Forward changes the backends to those that are well.
func (n Network) Forward(backends []netip.Addr) error {
	n.Backends = backends
	return n.ensureForward()
}

// ensureForward sends connections to the gateway's port on to the backends with
// their source address kept. Client and backend are on the same bridge, so that
// answers would go past this machine, from an address that the client never
// spoke to: a rule on the bridge makes them pass through.
func (n Network) ensureForward() error {
	if len(n.Nodes) == 0 {
		return n.removeForward()
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	nat := fresh(c, n.forwardTable(nftables.TableFamilyIPv4))
	chain := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: nat, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	for _, from := range n.Nodes { // a packet that comes back to where it is from is dropped there
		n.spread(c, chain, from, others(n.Backends, from))
	}
	n.spread(c, chain, netip.Addr{}, n.Backends)
	bridge := fresh(c, n.forwardTable(nftables.TableFamilyBridge))
	chain = c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: bridge, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(-300),
	})
	for _, b := range n.Nodes {
		c.AddRule(&nftables.Rule{Table: bridge, Chain: chain, Exprs: n.throughHost(b)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables tables %s: %w", nat.Name, err)
	}
	return nil
}

func (n Network) forwardTable(family nftables.TableFamily) *nftables.Table {
	return &nftables.Table{Family: family, Name: n.Table + "-trust"}
}

// fresh makes an empty table of the name.
func fresh(c *nftables.Conn, t *nftables.Table) *nftables.Table {
	c.AddTable(t) // so that removing it cannot fail; all of it is one transaction
	c.DelTable(t)
	return c.AddTable(t)
}

func others(all []netip.Addr, than netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a == than })
}

// spread sends connections on, from one address or from all that get here.
func (n Network) spread(c *nftables.Conn, chain *nftables.Chain, from netip.Addr, to []netip.Addr) {
	for i, b := range to {
		c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: n.toBackend(from, b, uint32(len(to)-i))})
	}
	if from.IsValid() { // what has nobody to go to is refused by this machine
		out := append(n.toPort(from), &expr.Verdict{Kind: expr.VerdictAccept})
		c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: out})
	}
}

// toPort is: a connection to the gateway's port, from an address or from anywhere.
func (n Network) toPort(from netip.Addr) []expr.Any {
	out := append(address(ipDestination, n.Gateway), port(portDestination, n.Port)...)
	if from.IsValid() {
		out = append(out, address(ipSource, from)...)
	}
	return out
}

// toBackend is: of those that get here, send one in so many to the backend.
func (n Network) toBackend(from, backend netip.Addr, oneIn uint32) []expr.Any {
	out := n.toPort(from)
	if oneIn > 1 {
		out = append(out,
			&expr.Numgen{Register: 1, Modulus: oneIn, Type: unix.NFT_NG_RANDOM},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)})
	}
	return append(out,
		&expr.Immediate{Register: 1, Data: backend.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegAddrMax: 1})
}

// throughHost is: give answers of the backend to this machine, whatever their
// hardware address says.
func (n Network) throughHost(backend netip.Addr) []expr.Any {
	out := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(unix.ETH_P_IP)},
	}
	out = append(out, address(ipSource, backend)...)
	out = append(out, port(portSource, n.Port)...)
	return append(out,
		&expr.Immediate{Register: 1, Data: MAC(n.Gateway)},
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: macLen},
		&expr.Immediate{Register: 1, Data: []byte{unix.PACKET_HOST}},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: 1, SourceRegister: true})
}

func address(offset uint32, a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: ipLen},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

func port(offset uint32, p uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: portLen},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(p)},
	}
}

func (n Network) removeForward() error {
	return errors.Join(removeTable(n.forwardTable(nftables.TableFamilyIPv4)), removeTable(n.forwardTable(nftables.TableFamilyBridge)))
}
