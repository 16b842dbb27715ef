package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
)

// comments are what a package's source says: of a type under its name, of a
// field under Type.Field.
type comments map[string]string

// parseDir reads the Go files of a folder that are no tests.
func parseDir(dir string) ([]*ast.File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func readComments(dir string) (comments, error) {
	files, err := parseDir(dir)
	if err != nil {
		return nil, err
	}
	found := comments{}
	for _, file := range files {
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, spec := range gen.Specs {
				found.add(gen, spec.(*ast.TypeSpec))
			}
		}
	}
	return found, nil
}

func (c comments) add(gen *ast.GenDecl, typ *ast.TypeSpec) {
	c[typ.Name.Name] = clean(typ.Doc.Text() + gen.Doc.Text())
	body, ok := typ.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, field := range body.Fields.List {
		for _, name := range field.Names {
			c[typ.Name.Name+"."+name.Name] = clean(field.Doc.Text() + field.Comment.Text())
		}
	}
}

func clean(text string) string { return strings.Join(strings.Fields(text), " ") }

// methodNames are the methods that a folder's source declares on a type.
func methodNames(dir, receiver string) (map[string]bool, error) {
	files, err := parseDir(dir)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, file := range files {
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			typ := fn.Recv.List[0].Type
			if star, ok := typ.(*ast.StarExpr); ok {
				typ = star.X
			}
			if name, ok := typ.(*ast.Ident); ok && name.Name == receiver {
				names[fn.Name.Name] = true
			}
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no type %s with methods", dir, receiver)
	}
	return names, nil
}
