// Package match says which disks an expression means: one in CEL, the Common
// Expression Language, such as
//
//	disk.transport == "nvme" && disk.size >= 100u * GiB && !system_disk
//
// It owns what an expression may ask: disk, with the fields that the resource
// Disks has under the same names; system_disk, whether the running system came
// from it; and the units of sizes. An expression is checked whole when it is
// compiled, and what it may cost is bounded, so that both are safe with what
// anybody wrote. Nothing is kept between calls: few machines have an
// expression, and they look at it a few times in their lives.
package match

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// Bounds. Expressions of people are a line or two; they look at 20 facts.
const (
	maxLength = 4096 // characters
	maxDepth  = 50
	maxCost   = 100_000
	maxErrors = 3 // that are told
)

// fields are what an expression may ask of a disk. Numbers are unsigned, as in
// the resource.
var fields = map[string]*cel.Type{
	"dev_path": cel.StringType, "size": cel.UintType, "pretty_size": cel.StringType, "io_size": cel.UintType, "sector_size": cel.UintType,
	"readonly": cel.BoolType, "cdrom": cel.BoolType, "rotational": cel.BoolType,
	"model": cel.StringType, "firmware_version": cel.StringType, "serial": cel.StringType, "modalias": cel.StringType,
	"wwid": cel.StringType, "uuid": cel.StringType, "bus_path": cel.StringType, "sub_system": cel.StringType, "transport": cel.StringType,
	"secondary_disks": cel.ListType(cel.StringType), "symlinks": cel.ListType(cel.StringType),
}

// Fields are the names of what an expression may ask of a disk, sorted.
func Fields() []string { return slices.Sorted(maps.Keys(fields)) }

// Facts are what is known of a disk, by the name of the field. What the hardware
// does not tell may be missing.
type Facts map[string]any

// diskType is no identifier, so that no expression can make such a thing.
const diskType = "a disk"

// diskTypes adds the type of disk to those that CEL has.
type diskTypes struct{ *types.Registry }

func (p diskTypes) FindStructType(name string) (*types.Type, bool) {
	if name == diskType {
		return types.NewTypeTypeWithParam(types.NewObjectType(diskType)), true
	}
	return p.Registry.FindStructType(name)
}

func (p diskTypes) FindStructFieldNames(name string) ([]string, bool) {
	if name == diskType {
		return Fields(), true
	}
	return p.Registry.FindStructFieldNames(name)
}

func (p diskTypes) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if name != diskType {
		return p.Registry.FindStructFieldType(name, field)
	}
	t, ok := fields[field]
	if !ok {
		return nil, false
	}
	return &types.FieldType{
		Type:  t,
		IsSet: func(disk any) bool { return disk.(Facts)[field] != nil },
		GetFrom: func(disk any) (any, error) {
			if v := disk.(Facts)[field]; v != nil {
				return v, nil
			}
			return zero(t), nil
		},
	}, true
}

func zero(t *cel.Type) any {
	switch t {
	case cel.StringType:
		return ""
	case cel.UintType:
		return uint64(0)
	case cel.BoolType:
		return false
	}
	return []string{}
}

// units are those of sizes, in bytes.
func units() []cel.EnvOption {
	var out []cel.EnvOption
	small, large := uint64(1), uint64(1)
	for _, prefix := range "kMGTPE" {
		small, large = small*1000, large*1024
		binary := strings.ToUpper(string(prefix)) + "iB"
		out = append(out, cel.Constant(string(prefix)+"B", cel.UintType, types.Uint(small)), cel.Constant(binary, cel.UintType, types.Uint(large)))
	}
	return out
}

// Expression is one that was compiled. It is safe for concurrent use.
type Expression struct{ program cel.Program }

// Compile checks an expression: that it is one, asks only what there is, and is
// either true or false.
func Compile(text string) (*Expression, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, fmt.Errorf("types of expressions: %w", err)
	}
	env, err := cel.NewEnv(append(units(),
		cel.CustomTypeProvider(diskTypes{registry}), cel.CustomTypeAdapter(registry),
		cel.Variable("disk", cel.ObjectType(diskType)), cel.Variable("system_disk", cel.BoolType),
		cel.ParserExpressionSizeLimit(maxLength), cel.ParserRecursionLimit(maxDepth),
	)...)
	if err != nil {
		return nil, fmt.Errorf("language of expressions: %w", err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, explained(issues)
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("it is of type %v, neither true nor false", ast.OutputType())
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, err
	}
	return &Expression{program}, nil
}

// explained says what is wrong with an expression on one line, and where.
func explained(issues *cel.Issues) error {
	var out []string
	for i, e := range issues.Errors() {
		if i == maxErrors {
			out = append(out, "and more")
			break
		}
		text := strings.Join(strings.Fields(e.Message), " ")
		switch {
		case strings.HasPrefix(text, "undefined field"):
			text += "; disk has " + strings.Join(Fields(), ", ")
		case strings.HasPrefix(text, "found no matching overload") && strings.Contains(text, "int") && strings.Contains(text, "uint"):
			text += "; sizes are unsigned, such as 100u * GiB"
		}
		out = append(out, fmt.Sprintf("line %d, column %d: %s", e.Location.Line(), max(e.Location.Column(), 0)+1, text))
	}
	return errors.New(strings.Join(out, "; "))
}

// Matches says whether a disk is meant. system tells whether the running system
// came from it.
func (e *Expression) Matches(disk Facts, system bool) (bool, error) {
	out, _, err := e.program.Eval(map[string]any{"disk": disk, "system_disk": system})
	if err != nil {
		return false, err
	}
	is, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("it gives %v, neither true nor false", out.Type())
	}
	return is, nil
}
