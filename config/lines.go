package config

import "strings"

// around is how many unchanged lines a difference shows around changed ones.
const around = 3

// maxTable bounds the table that differences are found with; beyond it, the
// part that differs is shown as replaced.
const maxTable = 4 << 20

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// diffLines gives every line, with "-", "+" or " " before it.
func diffLines(a, b []string) []string {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	out := prefixed(" ", a[:head])
	out = append(out, middle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	return append(out, prefixed(" ", a[len(a)-tail:])...)
}

func middle(a, b []string) []string {
	if (len(a)+1)*(len(b)+1) > maxTable {
		return append(prefixed("-", a), prefixed("+", b)...)
	}
	// common[i][j] is the length of the longest common part of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i] == b[j]:
			out = append(out, " "+a[i])
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			out = append(out, "-"+a[i])
			i++
		default:
			out = append(out, "+"+b[j])
			j++
		}
	}
	return append(append(out, prefixed("-", a[i:])...), prefixed("+", b[j:])...)
}

func prefixed(with string, list []string) []string {
	var out []string
	for _, l := range list {
		out = append(out, with+l)
	}
	return out
}

// shorten keeps changed lines and the lines around them.
func shorten(all []string) []string {
	keep := make([]bool, len(all))
	for i, l := range all {
		if l[0] == ' ' {
			continue
		}
		for j := max(0, i-around); j <= min(len(all)-1, i+around); j++ {
			keep[j] = true
		}
	}
	var out []string
	gap := false
	for i, l := range all {
		if !keep[i] {
			gap = true
			continue
		}
		if gap && len(out) > 0 {
			out = append(out, " …")
		}
		gap = false
		out = append(out, l)
	}
	return out
}
