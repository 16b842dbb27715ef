// Docgen writes the reference pages of the documentation from what they
// describe: the table of configuration keys, the commands of talosctl, the
// types of the store, and the table of the API's methods. What a thing is for
// comes from the comments of the source.
//
// It is run by `make generate`, from the root of the checkout.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	out := flag.String("o", filepath.Join("docs", "reference"), "folder to write the pages to")
	root := flag.String("root", ".", "root of the checkout, whose comments are read")
	flag.Parse()
	if err := run(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// pages are made by these.
var pages = map[string]func(root string) (string, error){
	"configuration.md":   configuration,
	"config.schema.json": schema,
	"talosctl.md":        commands,
	"resources.md":       resources,
	"api.md":             methods,
}

func run(root, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for name, page := range pages {
		text, err := page(root)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// row writes a row of a Markdown table.
func row(b *strings.Builder, cells ...string) {
	for i, c := range cells {
		cells[i] = strings.ReplaceAll(strings.Join(strings.Fields(c), " "), "|", `\|`)
	}
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// head writes the head of a Markdown table.
func head(b *strings.Builder, cells ...string) {
	row(b, cells...)
	b.WriteString("|" + strings.Repeat("---|", len(cells)) + "\n")
}

// code quotes text as code; nothing stays nothing.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// codes quotes each of the texts.
func codes(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = code(t)
	}
	return strings.Join(quoted, ", ")
}
