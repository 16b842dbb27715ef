package cli

import (
	"io"
	"strings"
	"unicode/utf8"
)

// gap is the space between two columns.
const gap = 3

// Table aligns cells in columns. Rows may be written in parts: the widths of
// what was written before are kept.
type Table struct {
	w      io.Writer
	rows   [][]string
	widths []int
}

// NewTable starts a table with a header.
func NewTable(w io.Writer, header ...string) *Table {
	t := &Table{w: w}
	t.Row(header...)
	return t
}

// Row adds a line. An empty cell shows as nothing, a line break as a space.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = strings.ReplaceAll(c, "\n", " ")
		if i == len(t.widths) {
			t.widths = append(t.widths, 0)
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i]))
	}
	t.rows = append(t.rows, row)
}

// Flush writes the rows added since the last time.
func (t *Table) Flush() error {
	var b strings.Builder
	for _, row := range t.rows {
		line := ""
		for i, cell := range row {
			line += cell + strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+gap)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	t.rows = nil
	_, err := io.WriteString(t.w, b.String())
	return err
}
