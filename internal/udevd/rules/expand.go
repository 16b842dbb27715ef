package rules

import (
	"path"
	"strings"
	"unicode/utf8"

	"talos/internal/linux/sysfs"
)

// maxValue bounds what a value becomes.
const maxValue = 4096

// forms are the long and the short way to write what is put into values.
var forms = []struct {
	long  string
	short byte
	arg   bool
}{
	{"devnode", 'N', false}, {"tempnode", 'N', false}, {"devpath", 'p', false}, {"driver", 'd', false}, {"kernel", 'k', false}, {"number", 'n', false},
	{"parent", 'P', false}, {"major", 'M', false}, {"minor", 'm', false}, {"links", 'L', false}, {"name", 'D', false}, {"root", 'r', false},
	{"attr", 's', true}, {"env", 'E', true}, {"sys", 'S', false}, {"id", 'b', false},
}

// expand puts in what $name, $name{arg}, %x and %x{arg} stand for. What is no
// such form stays as it is.
func (st *state) expand(text string) string {
	var b strings.Builder
	for i := 0; i < len(text) && b.Len() < maxValue; {
		c := text[i]
		if c != '$' && c != '%' {
			b.WriteByte(c)
			i++
			continue
		}
		if i+1 < len(text) && text[i+1] == c { // $$ and %%
			b.WriteByte(c)
			i += 2
			continue
		}
		value, n := st.form(text[i:])
		if n == 0 {
			b.WriteByte(c)
			i++
			continue
		}
		b.WriteString(value)
		i += n
	}
	out := b.String()
	return out[:min(len(out), maxValue)]
}

// form reads one form at the start of text; n is 0 if there is none.
func (st *state) form(text string) (value string, n int) {
	for _, f := range forms {
		n := 0
		switch {
		case text[0] == '$' && strings.HasPrefix(text[1:], f.long):
			n = 1 + len(f.long)
		case text[0] == '%' && len(text) > 1 && text[1] == f.short:
			n = 2
		default:
			continue
		}
		arg := ""
		if f.arg {
			rest, ok := strings.CutPrefix(text[n:], "{")
			if !ok {
				return "", 0
			}
			if arg, _, ok = strings.Cut(rest, "}"); !ok {
				return "", 0
			}
			n += len(arg) + 2
		}
		return st.value(f.short, arg), n
	}
	return "", 0
}

func (st *state) value(form byte, arg string) string {
	s := st.subject
	above := func(of func(sysfs.Device) string) string {
		if st.parent.Valid() {
			return of(st.parent)
		}
		return ""
	}
	switch form {
	case 'k':
		return s.Device.Name()
	case 'n':
		name := s.Device.Name()
		return name[len(strings.TrimRight(name, "0123456789")):]
	case 'p':
		return s.Event.DevPath
	case 'b':
		return above(sysfs.Device.Name)
	case 'd':
		return above(sysfs.Device.Driver)
	case 's':
		// Of the device itself, or of the one above that has matched. What hardware
		// says of itself must not make a name with folders, or with blanks.
		value := s.Device.Attr(arg)
		if value == "" {
			value = above(func(d sysfs.Device) string { return d.Attr(arg) })
		}
		return strings.Join(strings.Fields(Replace(value, " ")), "_")
	case 'E':
		return st.Env[arg]
	case 'M':
		return st.Env["MAJOR"]
	case 'm':
		return st.Env["MINOR"]
	case 'P':
		if parent := s.Device.Parent(); parent.Valid() {
			return parent.Uevent()["DEVNAME"]
		}
	case 'D':
		return st.name()
	case 'L':
		return strings.Join(st.Links, " ")
	case 'r':
		return "/dev"
	case 'S':
		return "/sys"
	case 'N':
		if name := st.Env["DEVNAME"]; name != "" {
			return path.Join("/dev", name)
		}
	}
	return ""
}

// Replace makes "_" of characters that a name below /dev should not have. What
// is in also may stay too.
func Replace(text, also string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', strings.ContainsRune("#+-.:=@_", r), strings.ContainsRune(also, r),
			r > 0x7f && r != utf8.RuneError:
			b.WriteRune(r)
		default:
			b.WriteByte('_')
		}
	}
	return b.String()
}
