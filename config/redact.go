package config

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"

	"talos/internal/resources/object"
)

// Redacted stands for a secret.
const Redacted = "[redacted]"

// redactWith is a copy in which every secret that is set is replaced by what name
// makes of it.
func redactWith(c *Config, name func(secret string) string) *Config {
	out := object.Clone(*c)
	redact(reflect.ValueOf(&out).Elem(), "", name)
	return &out
}

func redact(v reflect.Value, at string, name func(string) string) {
	t := v.Type()
	if leaf(t) {
		if secret(at) {
			hide(v, name)
		}
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			redact(v.Elem(), at, name)
		}
	case reflect.Slice:
		for i := range v.Len() {
			redact(v.Index(i), at+"[]", name)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			e := reflect.New(t.Elem()).Elem()
			e.Set(v.MapIndex(k))
			redact(e, at+"{}", name)
			v.SetMapIndex(k, e)
		}
	case reflect.Struct:
		for _, f := range reflect.VisibleFields(t) {
			k := key{path: at, pattern: at}.field(keyName(f))
			redact(v.FieldByIndex(f.Index), k.pattern, name)
		}
	}
}

func hide(v reflect.Value, name func(string) string) {
	switch {
	case v.Len() == 0: // text, bytes and maps alike
	case v.Type() == base64Type:
		v.SetBytes([]byte(name(string(v.Bytes()))))
	case v.Kind() == reflect.Map:
		for _, k := range v.MapKeys() {
			v.SetMapIndex(k, reflect.ValueOf(name(fmt.Sprint(v.MapIndex(k).Interface()))))
		}
	default:
		v.SetString(name(v.String()))
	}
}

// marks names secrets so that equal ones are equal and different ones differ,
// for as long as two documents are compared.
type marks struct {
	salt string
	seen map[string]string
}

func newMarks() *marks {
	salt := make([]byte, 8)
	rand.Read(salt) // never returns an error
	return &marks{salt: hex.EncodeToString(salt), seen: map[string]string{}}
}

func (m *marks) name(secret string) string {
	if m.seen[secret] == "" {
		m.seen[secret] = Redacted + m.salt + "-" + itoa(len(m.seen)) + ";"
	}
	return m.seen[secret]
}

// strip leaves only that there is a secret.
func (m *marks) strip(line string) string {
	for {
		i := strings.Index(line, Redacted+m.salt)
		if i < 0 {
			return line
		}
		rest := line[i+len(Redacted):]
		line = line[:i+len(Redacted)] + rest[strings.IndexByte(rest, ';')+1:]
	}
}
