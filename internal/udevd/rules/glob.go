package rules

import (
	"strings"
	"unicode/utf8"
)

// pattern is what a value is matched with: alternatives of shell patterns,
// separated by "|". An empty alternative matches the empty value.
type pattern struct {
	alternatives []string
	fold         bool
}

func compile(text string, fold bool) *pattern {
	if fold {
		text = strings.ToLower(text)
	}
	return &pattern{alternatives: strings.Split(text, "|"), fold: fold}
}

func (p *pattern) matches(value string) bool {
	if p.fold {
		value = strings.ToLower(value)
	}
	for _, a := range p.alternatives {
		if Match(a, value) {
			return true
		}
	}
	return false
}

// Match is fnmatch(3) without flags: * and ? match any character, also slashes;
// [a-z] and [!a-z] are sets; a backslash takes the next character as it is. It
// takes time proportional to the product of both lengths at the most.
func Match(pattern, value string) bool {
	star, resume := -1, 0 // where to go on if what follows the last * does not match
	p, v := 0, 0
	for v < len(value) {
		if p < len(pattern) && pattern[p] == '*' {
			star, resume = p+1, v
			p++
			continue
		}
		if n, width := single(pattern[p:], value[v:]); n > 0 {
			p, v = p+n, v+width
			continue
		}
		if star < 0 {
			return false
		}
		_, width := utf8.DecodeRuneInString(value[resume:])
		resume += width
		p, v = star, resume
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// single matches one character; n is how much of the pattern that took, 0 if
// it does not match.
func single(pattern, value string) (n, width int) {
	if pattern == "" {
		return 0, 0
	}
	r, width := utf8.DecodeRuneInString(value)
	switch pattern[0] {
	case '?':
		return 1, width
	case '[':
		if n, in, ok := set(pattern, r); ok {
			if in {
				return n, width
			}
			return 0, 0
		}
	case '\\':
		if len(pattern) > 1 {
			want, n := utf8.DecodeRuneInString(pattern[1:])
			if want == r {
				return n + 1, width
			}
			return 0, 0
		}
	}
	want, n := utf8.DecodeRuneInString(pattern)
	if want != r {
		return 0, 0
	}
	return n, width
}

// set reads [...]; without its end it is no set, and the bracket itself is meant.
func set(pattern string, r rune) (n int, in, ok bool) {
	i := 1
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	for first := true; i < len(pattern); first = false {
		if pattern[i] == ']' && !first {
			return i + 1, in != negated, true
		}
		low, w := utf8.DecodeRuneInString(pattern[i:])
		i += w
		high := low
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			high, w = utf8.DecodeRuneInString(pattern[i+1:])
			i += 1 + w
		}
		if low <= r && r <= high {
			in = true
		}
	}
	return 0, false, false
}
