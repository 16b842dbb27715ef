package host

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Cut is a port whose network is broken on purpose: the link stays up, and what
// is sent is lost. That is how a cable or a switch fails that nobody notices.
type Cut struct {
	Port   string // link name
	FromIt bool   // what the node sends is lost
	ToIt   bool   // what is sent to the node is lost
}

// EnsureCuts cuts exactly those ports off that Cuts names.
func (n Network) EnsureCuts() error {
	if len(n.Cuts) == 0 {
		return n.removeCuts()
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := fresh(c, n.cutTable())
	first := nftables.ChainPriorityRef(-400) // before all else, also of what has its own way on this machine
	in := c.AddChain(&nftables.Chain{Name: "prerouting", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: first})
	out := c.AddChain(&nftables.Chain{Name: "postrouting", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting, Priority: first})
	for _, cut := range n.Cuts {
		if cut.FromIt {
			c.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: lose(expr.MetaKeyIIFNAME, cut.Port)})
		}
		if cut.ToIt {
			c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: lose(expr.MetaKeyOIFNAME, cut.Port)})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", table.Name, err)
	}
	return nil
}

func lose(key expr.MetaKey, port string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(port)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func (n Network) cutTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyBridge, Name: n.Table + "-cut"}
}

func (n Network) removeCuts() error {
	return removeTable(n.cutTable())
}

// removeTable removes a table; none is fine.
func removeTable(t *nftables.Table) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.AddTable(t)
	c.DelTable(t)
	err = c.Flush()
	if t.Family == nftables.TableFamilyBridge && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)) {
		return nil // a kernel without it has no such table
	}
	if err != nil {
		return fmt.Errorf("remove nftables table %s: %w", t.Name, err)
	}
	return nil
}
