//go:build e2e

package machine

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"talos/internal/provision/qemu"
)

// TestScreen: a monitor shows what the machine is and what to do next, goes on
// with it, and does nothing with what is typed before it.
func TestScreen(t *testing.T) {
	l := enter(t)
	if l == nil {
		return
	}
	l.lease("box")
	l.tellTime()
	b := l.machine(func(v *qemu.VM) {
		v.Screen = true
		v.Disks = []qemu.Disk{{Path: filepath.Join(l.dir, "disk.raw"), Size: disk, From: l.image("talos-amd64.raw")}}
	})
	b.on()
	print, letters := b.fingerprint(), newFont()
	waiting := []string{
		"Host        box",
		"Address     " + address.String(),
		"API         " + address.String() + ":50000",
		"Fingerprint " + print,
		"",
		"This machine waits for its first configuration. From another machine:",
		`  talosctl apply-config --insecure -n ` + address.String() + ` -f FILE \`,
		"    --cert-fingerprint " + print,
	}
	b.displays(letters, "MAINTENANCE", waiting...)

	const typed = "tilt" // the screen has shown its letters, so they would be read
	for _, keys := range append(strings.Split(typed, ""), "ret", "ctrl+c", "ctrl+d", "ctrl+s", "alt+sysrq+b") {
		if err := b.PressKeys(t.Context(), strings.Split(keys, "+")...); err != nil {
			t.Fatal(err)
		}
	}
	b.stranger(print).sees(nil, "version")
	shown := b.displays(letters, "MAINTENANCE", waiting...)
	for _, text := range []string{typed, "login:"} {
		if err := contains(shown, text); err == nil {
			t.Errorf("the screen shows %q:\n%s", text, shown)
		}
	}
	if n := strings.Count(b.console(), "Linux version"); n != 1 {
		t.Errorf("the machine has started %d times, want once", n)
	}
	if testing.Short() {
		return
	}
	b.stranger(print).applies(l.file("machine.yaml", l.cluster().configuration()))
	b.displays(letters, "BOOTING",
		"Host        box",
		"Address     "+address.String(),
		"Type        control plane",
		"Kubernetes  the node has not been seen yet",
	)
}

// displays waits until the screen shows a title with the stage and, below an
// empty line, facts. It returns what can be read of the whole screen.
func (b *box) displays(letters *font, stage string, facts ...string) (text string) {
	b.lab.Helper()
	b.lab.eventually(soon, func() error {
		path := filepath.Join(b.lab.dir, "screen.ppm")
		if err := b.Screenshot(b.lab.Context(), path); err != nil {
			return err
		}
		rows, err := cells(b.lab.read(path))
		if err != nil {
			return err
		}
		learned := letters.copy()
		err = learned.match(rows, stage, facts)
		text = learned.read(rows)
		if err != nil {
			return fmt.Errorf("%w; of the screen can be read:\n%s", err, text)
		}
		*letters = *learned
		return nil
	})
	return text
}

// match compares the screen to what it should show.
func (f *font) match(rows [][]glyph, stage string, facts []string) error {
	title := rows[0]
	if len(title) < len(stage) {
		return fmt.Errorf("the screen has %d columns", len(title))
	}
	// Facts first: they are longer, and of more letters.
	for i, want := range append([]string{""}, facts...) {
		if 1+i >= len(rows) {
			return fmt.Errorf("the screen has %d lines", len(rows))
		}
		if err := f.learn(rows[1+i], want); err != nil {
			return fmt.Errorf("line %d is not %q: %w", 2+i, want, err)
		}
	}
	if err := f.learn(title[len(title)-len(stage):], stage); err != nil {
		return fmt.Errorf("the title does not end in %s: %w", stage, err)
	}
	if err := f.learn(title[:len("Talos ")], "Talos "); err != nil {
		return fmt.Errorf("the title does not begin with the product: %w", err)
	}
	return nil
}

// glyph is a picture of a letter: a byte for each of its lines.
type glyph [16]byte

// cells cuts a picture, in the format PPM, into rows of glyphs: the kernel's
// font has 8 by 16 pixels. In each the colour that most pixels have is the background.
func cells(picture []byte) ([][]glyph, error) {
	var width, height, most int
	if _, err := fmt.Fscanf(bytes.NewReader(picture), "P6\n%d %d\n%d", &width, &height, &most); err != nil || most != 255 {
		return nil, fmt.Errorf("not a PPM of 8 bits: %v", err)
	}
	pixels := picture[max(0, len(picture)-3*width*height):]
	if len(pixels) != 3*width*height || width < 8 || height < 16 {
		return nil, fmt.Errorf("a PPM of %d bytes has %dx%d pixels", len(picture), width, height)
	}
	rows := make([][]glyph, height/16)
	for y := range rows {
		rows[y] = make([]glyph, width/8)
		for x := range rows[y] {
			var lit int
			for i := range 16 {
				for j := range 8 {
					if at := 3 * ((16*y+i)*width + 8*x + j); pixels[at] > 127 {
						rows[y][x][i] |= 0x80 >> j
						lit++
					}
				}
			}
			if lit > 64 { // dark on bright
				for i := range rows[y][x] {
					rows[y][x][i] ^= 0xff
				}
			}
		}
	}
	return rows, nil
}

// font is what letters look like. Nobody tells it beforehand: it is learned from
// text that is known, and contradicts text that is another.
type font struct {
	looks map[rune]glyph
	reads map[glyph]rune
}

func newFont() *font {
	return &font{map[rune]glyph{' ': {}}, map[glyph]rune{{}: ' '}}
}

func (f *font) copy() *font {
	out := newFont()
	for letter, looks := range f.looks {
		out.looks[letter], out.reads[looks] = looks, letter
	}
	return out
}

// learn takes a row to show a text and nothing else. It is an error if a letter
// looks unlike before, or as another one does.
func (f *font) learn(row []glyph, text string) error {
	letters := []rune(text)
	if len(letters) > len(row) {
		return fmt.Errorf("it has more than the screen's %d columns", len(row))
	}
	for column, looks := range row {
		letter := ' '
		if column < len(letters) {
			letter = letters[column]
		}
		known, ok := f.looks[letter]
		if ok && known != looks {
			return fmt.Errorf("in column %d there is no %q", column+1, letter)
		}
		if other, ok := f.reads[looks]; ok && other != letter {
			return fmt.Errorf("in column %d there is %q in place of %q", column+1, other, letter)
		}
		f.looks[letter], f.reads[looks] = looks, letter
	}
	return nil
}

// read reads rows, with a ? for what has not been learned.
func (f *font) read(rows [][]glyph) string {
	var out strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for _, looks := range row {
			letter, ok := f.reads[looks]
			if !ok {
				letter = '?'
			}
			line.WriteRune(letter)
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return out.String()
}

// TestFont: a picture of text is read, and is no picture of any other text.
func TestFont(t *testing.T) {
	const columns = 12
	draw := func(lines ...string) []byte {
		out := fmt.Appendf(nil, "P6\n%d %d\n255\n", 8*columns, 16*len(lines))
		for y := range 16 * len(lines) {
			for x := range 8 * columns {
				var letter byte = ' '
				if line := lines[y/16]; x/8 < len(line) {
					letter = line[x/8]
				}
				lit := letter != ' ' && y%16 == 5 && letter>>(x%8)&1 != 0
				if y < 16 {
					lit = !lit // the title is dark on bright
				}
				if lit {
					out = append(out, 255, 255, 255)
				} else {
					out = append(out, 0, 0, 0)
				}
			}
		}
		return out
	}
	text := []string{"Talos  GOING", "", "Host  box", "Address ::1"}
	rows, err := cells(draw(text...))
	if err != nil {
		t.Fatal(err)
	}
	letters := newFont()
	if err := letters.match(rows, "GOING", text[2:]); err != nil {
		t.Fatal(err)
	}
	if got, want := letters.read(rows), strings.Join(text, "\n")+"\n"; got != want {
		t.Errorf("read = %q, want %q", got, want)
	}
	for _, other := range []string{"Host  bob", "Host  bo", "Host  boxx", "Haste box", "Host   box", "Host  box  a", ""} {
		if err := newFont().match(rows, "GOING", []string{other, text[3]}); err == nil {
			t.Errorf("%q is taken for %q", text[2], other)
		}
	}
	if err := newFont().match(rows, "ENDED", text[2:]); err == nil {
		t.Error("the title is taken for another one")
	}
	for _, picture := range [][]byte{nil, []byte("P6\n8 16\n255\n"), draw(text...)[1:]} {
		if _, err := cells(picture); err == nil {
			t.Errorf("%.20q is taken for a picture", picture)
		}
	}
}
