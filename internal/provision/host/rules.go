package host

import (
	"fmt"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ensureRules replaces the cluster's table: nodes reach the world under the
// host's address, and what they send is forwarded, as are the answers. Nobody
// but the host reaches them, or what it serves for them on the gateway's
// address: not other clusters, and not the host's own network, for which the
// host would be a router and an open name server. An accept here does not
// overrule a drop in somebody else's table.
func (n Network) ensureRules() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: n.Table}
	c.AddTable(table) // so that removing it cannot fail; all of it is one transaction
	c.DelTable(table)
	c.AddTable(table)
	post := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: n.masquerade()})
	forward := c.AddChain(&nftables.Chain{
		Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: n.intrusion()})
	input := c.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: n.stranger()})
	for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
		c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(n.Bridge)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", n.Table, err)
	}
	return nil
}

// notFrom is: came in by another link.
func notFrom(link string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: ifname(link)},
	}
}

// intrusion is: a new connection into the network from outside; drop it.
func (n Network) intrusion() []expr.Any {
	return append(notFrom(n.Bridge),
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(n.Bridge)},
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Verdict{Kind: expr.VerdictDrop})
}

// stranger is: to the gateway's address, neither from the network nor from
// this machine; drop it.
func (n Network) stranger() []expr.Any {
	out := append(address(ipDestination, n.Gateway), notFrom(n.Bridge)...)
	out = append(out, notFrom("lo")...)
	return append(out, &expr.Verdict{Kind: expr.VerdictDrop})
}

// masquerade is: from the network, out of another link than the bridge.
func (n Network) masquerade() []expr.Any {
	const sourceOffset, addressLen = 12, 4
	network := n.Prefix.Masked().Addr().As4()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: sourceOffset, Len: addressLen},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: addressLen, Mask: net.CIDRMask(n.Prefix.Bits(), 32), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: network[:]},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: ifname(n.Bridge)},
		&expr.Masq{},
	}
}

func (n Network) removeRules() error {
	return removeTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: n.Table})
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
