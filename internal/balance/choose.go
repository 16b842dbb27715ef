package balance

import (
	"cmp"
	"slices"
)

// health is what is known of a server.
type health int

const (
	unknown health = iota // not checked yet
	well
	suspect // failed lately: connections go elsewhere if they can
	ill     // lost: its connections are better cut
)

// next is the health after a check went well or not, and if not, whether the
// server is lost.
func (h health) next(ok, lost bool) health {
	switch {
	case ok:
		return well
	case h == unknown || h == ill:
		return h
	case lost:
		return ill
	default:
		return suspect
	}
}

// candidate is what choose has to know of a server.
type candidate struct {
	class  int
	health health
}

// choose lists servers in the order in which a connection is tried on them:
// those that are well, of the lowest class first and within a class beginning
// with another each turn, then those under suspicion. With limit, only classes
// below it count.
func choose(list []candidate, turn, limit int) []int {
	var out []int
	for i, c := range list {
		if (c.health == well || c.health == suspect) && (limit == 0 || c.class < limit) {
			out = append(out, i)
		}
	}
	place := func(i int) int { return (i + turn) % len(list) }
	slices.SortFunc(out, func(a, b int) int {
		return cmp.Or(cmp.Compare(list[a].health, list[b].health), cmp.Compare(list[a].class, list[b].class), cmp.Compare(place(a), place(b)))
	})
	return out
}
