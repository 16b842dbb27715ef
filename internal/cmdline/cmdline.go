// Package cmdline reads the kernel's command line: as the kernel splits it, and
// what of it is ours. Whoever asks for an argument asks here, so that none is
// there for one and not for another.
//
// It is pure, and bad arguments are told, never fatal: a machine with a typing
// error on its command line still boots. Values are not changed once made. It is
// part of the initramfs's init, and so needs little.
package cmdline

import (
	"fmt"
	"os"
	"strings"
)

// Arg is one argument of the kernel.
type Arg struct {
	Key, Value string
	HasValue   bool // there was a =
}

// Is says whether the argument has that key, as the kernel compares keys: a dash
// is an underscore.
func (a Arg) Is(key string) bool {
	return strings.ReplaceAll(a.Key, "-", "_") == strings.ReplaceAll(key, "-", "_")
}

// Line is a command line.
type Line struct {
	Args []Arg
	Init string // what stands behind --, for the first process
}

// File is where the kernel shows its command line.
const File = "/proc/cmdline"

// Read parses that of the running kernel.
func Read() (Line, error) {
	text, err := os.ReadFile(File)
	return Parse(string(text)), err
}

// Parse splits a command line in the way of the kernel (lib/cmdline.c,
// next_arg): at blanks outside of double quotes, at the first = that does not
// come first; quotes around an argument or its value are not part of it. It is
// never wrong.
func Parse(text string) Line {
	var l Line
	text = strings.TrimLeft(text, blanks)
	for text != "" {
		var a Arg
		a, text = next(text)
		if a.Key == "--" && !a.HasValue {
			l.Init = strings.TrimRight(text, blanks)
			return l
		}
		l.Args = append(l.Args, a)
	}
	return l
}

// blanks are what isspace of the kernel takes for such; it knows no-break
// spaces too, which nobody writes.
const blanks = " \t\n\v\f\r"

// next takes one argument off the text, which does not begin with a blank.
func next(text string) (Arg, string) {
	quoted := text[0] == '"'
	if quoted {
		text = text[1:]
	}
	inside, equals, end := quoted, 0, len(text)
	for i := range len(text) {
		if strings.IndexByte(blanks, text[i]) >= 0 && !inside {
			end = i
			break
		}
		if text[i] == '=' && equals == 0 {
			equals = i
		}
		if text[i] == '"' {
			inside = !inside
		}
	}
	arg, rest := text[:end], strings.TrimLeft(text[end:], blanks)
	if equals == 0 {
		if quoted {
			arg = strings.TrimSuffix(arg, `"`)
		}
		return Arg{Key: arg}, rest
	}
	value, opened := strings.CutPrefix(arg[equals+1:], `"`)
	if opened || quoted {
		value = strings.TrimSuffix(value, `"`)
	}
	return Arg{Key: arg[:equals], Value: value, HasValue: true}, rest
}

// All lists the values of an argument that may come more than once.
func (l Line) All(key string) []string {
	var out []string
	for _, a := range l.Args {
		if a.Is(key) {
			out = append(out, a.Value)
		}
	}
	return out
}

// Last is the value of an argument of which the last one counts, and whether
// there is any.
func (l Line) Last(key string) (string, bool) {
	all := l.All(key)
	if len(all) == 0 {
		return "", false
	}
	return all[len(all)-1], true
}

// String is Last where an argument without a value says nothing.
func (l Line) text(key string) string {
	value, _ := l.Last(key)
	return value
}

// Platform is talos.platform: where the machine runs. "" says nothing.
func (l Line) Platform() string { return l.text("talos.platform") }

// Config is talos.config: where the configuration comes from.
func (l Line) Config() string { return l.text("talos.config") }

// InlineConfig is talos.config.inline: the configuration itself, compressed with
// zstd, in base64.
func (l Line) InlineConfig() string { return l.text(inlineConfig) }

const inlineConfig = "talos.config.inline"

// Hostname is talos.hostname.
func (l Line) Hostname() string { return l.text("talos.hostname") }

// WipeArgument is the key of Wipe.
const WipeArgument = "talos.experimental.wipe"

// Wipe is talos.experimental.wipe: what of the system disk this start empties
// before it uses it. "system" is all of it, "system:STATE,EPHEMERAL" what is
// listed; the labels are not checked.
func (l Line) Wipe() (labels []string, all bool, err error) {
	text := l.text(WipeArgument)
	what, list, some := strings.Cut(text, ":")
	switch {
	case text == "":
		return nil, false, nil
	case what != "system" || some && list == "":
		return nil, false, fmt.Errorf("kernel argument %s=%s: want system or system:LABEL,LABEL", WipeArgument, text)
	case !some:
		return nil, true, nil
	}
	return strings.Split(list, ","), false, nil
}

// UnknownDisks is the key of IgnoreUnknownDisks.
const UnknownDisks = "talos.disks.unknown"

// IgnoreUnknownDisks is talos.disks.unknown=ignore: disks that can't be read are
// not waited for, though the machine's system may be on one of them.
func (l Line) IgnoreUnknownDisks() (bool, error) {
	switch text, given := l.Last(UnknownDisks); {
	case !given:
		return false, nil
	case text != "ignore":
		return false, fmt.Errorf("kernel argument %s=%s: want ignore", UnknownDisks, text)
	}
	return true, nil
}

// DataSource is ds, as cloud images have it: nocloud;s=https://…
func (l Line) DataSource() string { return l.text("ds") }
