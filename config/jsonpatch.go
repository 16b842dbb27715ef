package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// operation is one step of a JSON patch.
type operation struct {
	Op    string    `yaml:"op"`
	Path  string    `yaml:"path"`
	From  string    `yaml:"from"`
	Value yaml.Node `yaml:"value"`
}

func checkOperations(ops []operation) error {
	for i, op := range ops {
		want := ""
		switch op.Op {
		case "add", "replace", "test":
			if op.Value.Kind == 0 {
				want = "a value"
			}
		case "remove":
		case "move", "copy":
			if !strings.HasPrefix(op.From, "/") && (op.From != "" || op.Op == "move") {
				want = "from, such as /machine/network"
			}
		default:
			want = "op, one of add, remove, replace, move, copy, test"
		}
		if want == "" && !strings.HasPrefix(op.Path, "/") && (op.Path != "" || op.Op == "remove" || op.Op == "move") {
			want = "path, such as /machine/network"
		}
		if want != "" {
			return fmt.Errorf("parse JSON patch: operation %d (%s): want %s", i+1, op.Op, want)
		}
	}
	return nil
}

func applyOperations(root *yaml.Node, ops []operation) error {
	size := count(root)
	for i, op := range ops {
		if err := op.apply(root, &size); err != nil {
			return fmt.Errorf("operation %d: %s %s: %w", i+1, op.Op, op.Path, err)
		}
	}
	return nil
}

var errNotThere = errors.New("there is nothing at this path")

// count is the weight of a whole tree.
func count(n *yaml.Node) int {
	sum := weight(n)
	for _, c := range n.Content {
		sum += count(c)
	}
	return sum
}

// grown copies a value into a document, whose size it adds to.
func grown(n *yaml.Node, size *int) (*yaml.Node, error) {
	budget := maxNodes - *size
	out := expand(n, &budget, 0)
	if out == nil {
		return nil, errors.New("the document becomes too large or nests too deep")
	}
	*size = maxNodes - budget
	return out, nil
}

func (op operation) apply(root *yaml.Node, size *int) error {
	switch op.Op {
	case "add":
		value, err := grown(&op.Value, size)
		if err != nil {
			return err
		}
		return add(root, op.Path, value)
	case "remove":
		_, err := take(root, op.Path)
		return err
	case "replace":
		n, err := walk(root, tokens(op.Path))
		if err != nil {
			return err
		}
		value, err := grown(&op.Value, size)
		if err != nil {
			return err
		}
		return replaceNode(root, n, value)
	case "move":
		if strings.HasPrefix(op.Path, op.From+"/") {
			return errors.New("cannot move into itself")
		}
		n, err := take(root, op.From)
		if err != nil {
			return err
		}
		return add(root, op.Path, n)
	case "copy":
		n, err := walk(root, tokens(op.From))
		if err != nil {
			return err
		}
		value, err := grown(n, size)
		if err != nil {
			return err
		}
		return add(root, op.Path, value)
	}
	n, err := walk(root, tokens(op.Path))
	if err != nil {
		return err
	}
	budget := maxNodes
	want := expand(&op.Value, &budget, 0)
	if want == nil || !equal(n, want) {
		return errors.New("the value is another one")
	}
	return nil
}

// tokens splits a JSON pointer (RFC 6901).
func tokens(pointer string) []string {
	if pointer == "" {
		return nil // the document
	}
	list := strings.Split(pointer, "/")[1:]
	for i := range list {
		list[i] = strings.ReplaceAll(strings.ReplaceAll(list[i], "~1", "/"), "~0", "~")
	}
	return list
}

func walk(n *yaml.Node, path []string) (*yaml.Node, error) {
	for _, t := range path {
		switch n.Kind {
		case yaml.MappingNode:
			if n = find(n, t); n == nil {
				return nil, errNotThere
			}
		case yaml.SequenceNode:
			i, ok := index(t)
			if !ok || i >= len(n.Content) {
				return nil, errNotThere
			}
			n = n.Content[i]
		default:
			return nil, errNotThere
		}
	}
	return n, nil
}

// index reads the index of a list's item, which has no sign and no leading zero.
func index(token string) (int, bool) {
	i, err := strconv.Atoi(token)
	return i, err == nil && i >= 0 && strconv.Itoa(i) == token
}

// replaceNode replaces a value; the document itself stays a mapping.
func replaceNode(root, n, value *yaml.Node) error {
	if n == root && value.Kind != yaml.MappingNode {
		return errors.New("the document must stay a mapping")
	}
	*n = *value
	return nil
}

func add(root *yaml.Node, pointer string, value *yaml.Node) error {
	if pointer == "" {
		return replaceNode(root, root, value)
	}
	path := tokens(pointer)
	last := path[len(path)-1]
	parent, err := walk(root, path[:len(path)-1])
	if err != nil {
		return err
	}
	switch parent.Kind {
	case yaml.MappingNode:
		if old := find(parent, last); old != nil {
			*old = *value
			return nil
		}
		parent.Content = append(parent.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: last}, value)
		return nil
	case yaml.SequenceNode:
		i, ok := index(last)
		if last == "-" {
			i, ok = len(parent.Content), true
		}
		if !ok || i > len(parent.Content) {
			return errNotThere
		}
		parent.Content = slices.Insert(parent.Content, i, value)
		return nil
	}
	return errNotThere
}

// take removes what is at a pointer and returns it.
func take(root *yaml.Node, pointer string) (*yaml.Node, error) {
	path := tokens(pointer)
	n, err := walk(root, path)
	if err != nil {
		return nil, err
	}
	parent, err := walk(root, path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	if parent.Kind == yaml.MappingNode {
		remove(parent, path[len(path)-1])
		return n, nil
	}
	i := slices.Index(parent.Content, n)
	parent.Content = slices.Delete(parent.Content, i, i+1)
	return n, nil
}
