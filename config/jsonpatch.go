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
			if !strings.HasPrefix(op.From, "/") {
				want = "from, such as /machine/network"
			}
		default:
			want = "op, one of add, remove, replace, move, copy, test"
		}
		if want == "" && !strings.HasPrefix(op.Path, "/") {
			want = "path, such as /machine/network"
		}
		if want != "" {
			return fmt.Errorf("parse JSON patch: operation %d (%s): want %s", i+1, op.Op, want)
		}
	}
	return nil
}

func applyOperations(root *yaml.Node, ops []operation) error {
	for i, op := range ops {
		if err := op.apply(root); err != nil {
			return fmt.Errorf("operation %d: %s %s: %w", i+1, op.Op, op.Path, err)
		}
	}
	return nil
}

var errNotThere = errors.New("there is nothing at this path")

func (op operation) apply(root *yaml.Node) error {
	switch op.Op {
	case "add":
		return add(root, op.Path, without(&op.Value))
	case "remove":
		_, err := take(root, op.Path)
		return err
	case "replace":
		n, err := walk(root, tokens(op.Path))
		if err == nil {
			*n = *without(&op.Value)
		}
		return err
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
		return add(root, op.Path, without(n))
	}
	n, err := walk(root, tokens(op.Path))
	if err == nil && !equal(n, &op.Value) {
		err = errors.New("the value is another one")
	}
	return err
}

// tokens splits a JSON pointer (RFC 6901).
func tokens(pointer string) []string {
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
			i, err := strconv.Atoi(t)
			if err != nil || i < 0 || i >= len(n.Content) {
				return nil, errNotThere
			}
			n = n.Content[i]
		default:
			return nil, errNotThere
		}
	}
	return n, nil
}

func add(root *yaml.Node, pointer string, value *yaml.Node) error {
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
		i, err := strconv.Atoi(last)
		if last == "-" {
			i, err = len(parent.Content), nil
		}
		if err != nil || i < 0 || i > len(parent.Content) {
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
