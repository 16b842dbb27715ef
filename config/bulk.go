package config

import (
	"bytes"
	"regexp"
)

// maxBulk bounds what a text may have of what YAML makes nodes of. A tree takes
// hundreds of bytes for a node, which may be two bytes of text: without a bound a
// document of MaxSize takes a gigabyte, in the first process of a machine, and
// whoever reaches one that has no configuration may send it one. Documents that
// are taken have maxNodes at the most.
const maxBulk = 5 * maxNodes / 2

// bulky says whether a text may have more than limit of them. What is in block
// scalars, such as manifests, makes none; in a text that has more with them all
// other lines must be of the simplest form, so that there is no doubt about what
// is in one.
func bulky(data []byte, limit int) bool {
	if nodesOf(data) <= limit {
		return false
	}
	count, block := 0, -1 // the column that what is in a block scalar is right of
	for line := range bytes.Lines(data) {
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if bytes.ContainsAny(line, "\r\u0085\u2028\u2029") { // ends of lines, for YAML
			return true
		}
		text := bytes.TrimLeft(line, " ")
		if block >= 0 && (len(text) == 0 || len(line)-len(text) > block) {
			continue
		}
		block = -1
		if count += 1 + nodesOf(line); count > limit || !simpleLine.Match(line) {
			return true
		}
		if m := blockLine.FindSubmatchIndex(line); m != nil {
			if block = m[2]; m[2] < 0 { // no key: the last dash
				block = m[5] - len("- ")
			}
		}
	}
	return false
}

// nodesOf counts the bytes of which each node but the first needs one, or two nodes
// need one.
func nodesOf(text []byte) int {
	n := 0
	for _, c := range text {
		switch c {
		case '\n', '\r', ',', ':', '-', '?', '[', '{':
			n++
		}
	}
	return n
}

const (
	simpleKey   = `(?:[A-Za-z0-9_./$=+][A-Za-z0-9_./$=+-]*|"[^"\\]*"|'[^']*')`
	simpleValue = `(?:[A-Za-z0-9_./$=+(~-][^"'\[\]{}|>&*!%@#` + "`" + `]*|"[^"\\]*"|'[^']*'|\[\]|\{\})`
)

var (
	// simpleLine is a key with a value, an item of a list, a comment, or the start
	// of a block scalar: nothing that goes on in the next line but by indentation.
	simpleLine = regexp.MustCompile(`^ *(?:#.*|---|(?:- +)*-?(?:` + simpleKey + `:(?: +` + simpleValue + `| +[|>][+-]?)?|` + simpleValue + `|[|>][+-]?)?) *$`)
	blockLine  = regexp.MustCompile(`^ *(?:- +)*(?:(` + simpleKey + `): +|(- +))[|>][+-]? *$`)
)
