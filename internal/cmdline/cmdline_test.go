package cmdline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParse: each case as the kernel's own next_arg splits it.
func TestParse(t *testing.T) {
	arg := func(key string, value ...string) Arg {
		a := Arg{Key: key}
		for _, v := range value {
			a.Value, a.HasValue = v, true
		}
		return a
	}
	for _, tt := range []struct {
		text string
		want []Arg
		init string
	}{
		{text: ""},
		{text: " \n"},
		{text: "quiet", want: []Arg{arg("quiet")}},
		{text: "  a=1\tb=2 \n", want: []Arg{arg("a", "1"), arg("b", "2")}},
		{text: "a=1 a=2 a", want: []Arg{arg("a", "1"), arg("a", "2"), arg("a")}},
		{text: "a=", want: []Arg{arg("a", "")}},
		{text: "=a", want: []Arg{arg("=a")}},
		{text: "=a=b", want: []Arg{arg("=a", "b")}},
		{text: "a=b=c", want: []Arg{arg("a", "b=c")}},
		{text: `a="one two" b`, want: []Arg{arg("a", "one two"), arg("b")}},
		{text: `"a=one two" b`, want: []Arg{arg("a", "one two"), arg("b")}},
		{text: `"a b" c`, want: []Arg{arg("a b"), arg("c")}},
		{text: `a=x"y z"w b`, want: []Arg{arg("a", `x"y z"w`), arg("b")}},
		{text: `a="open b`, want: []Arg{arg("a", "open b")}},
		{text: `a="`, want: []Arg{arg("a", "")}},
		{text: `"`, want: []Arg{arg("")}},
		{text: "a -- b=c d", want: []Arg{arg("a")}, init: "b=c d"},
		{text: "a --", want: []Arg{arg("a")}},
		{text: "--x --=y a", want: []Arg{arg("--x"), arg("--", "y"), arg("a")}},
	} {
		got := Parse(tt.text)
		if diff := cmp.Diff(Line{Args: tt.want, Init: tt.init}, got); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", tt.text, diff)
		}
	}
}

func TestLookup(t *testing.T) {
	l := Parse("console=tty0 console=ttyS0 talos.platform=metal talos.platform=nocloud net.ifnames=0 talos.config.inline=x ds=nocloud;s=http://a/ talos_hostname=no")
	if diff := cmp.Diff([]string{"tty0", "ttyS0"}, l.All("console")); diff != "" {
		t.Errorf("All(console) (-want +got):\n%s", diff)
	}
	if got := l.Platform(); got != "nocloud" {
		t.Errorf("Platform() = %q, want the last one", got)
	}
	if got := l.DataSource(); got != "nocloud;s=http://a/" {
		t.Errorf("DataSource() = %q", got)
	}
	if _, ok := l.Last("quiet"); ok || l.Config() != "" || l.InlineConfig() != "x" || l.Hostname() != "" {
		t.Error("an argument that is not there has a value")
	}
	if got := Parse("a-b=1 a_b=2").All("a_b"); len(got) != 2 {
		t.Errorf("All(a_b) = %v, want both: a dash is an underscore", got)
	}
}

func TestIgnoreUnknownDisks(t *testing.T) {
	for text, want := range map[string]string{
		"quiet": "false <nil>", "talos.disks.unknown=ignore": "true <nil>", "talos.disks.unknown=ignore talos.disks.unknown=": "false kernel argument talos.disks.unknown=: want ignore",
		"talos.disks.unknown": "false kernel argument talos.disks.unknown=: want ignore", "-- talos.disks.unknown=ignore": "false <nil>",
	} {
		ignore, err := Parse(text).IgnoreUnknownDisks()
		if got := fmt.Sprint(ignore, " ", err); got != want {
			t.Errorf("IgnoreUnknownDisks of %q = %s, want %s", text, got, want)
		}
	}
}

func TestWipe(t *testing.T) {
	for text, want := range map[string]string{
		"quiet":                          "[] false <nil>",
		"talos.experimental.wipe=system": "[] true <nil>",
		"talos.experimental.wipe=system:STATE,EPHEMERAL": "[STATE EPHEMERAL] false <nil>",
		"talos.experimental.wipe=system:":                "want system or system:LABEL",
		"talos.experimental.wipe=all":                    "kernel argument talos.experimental.wipe=all: want",
		"talos.experimental.wipe":                        "[] false <nil>",
	} {
		labels, all, err := Parse(text).Wipe()
		if got := fmt.Sprint(labels, all, err); !strings.Contains(got, want) {
			t.Errorf("Wipe of %q = %s, want %s", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		`a="b c" d -- e`, "talos.hostname=a.b talos-hostname", "=a \"b=c d\"\n", "talos.experimental.wipe=system:STATE",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l := Parse(text)
		for _, a := range l.Args {
			if a.Key == "--" && !a.HasValue || !a.HasValue && a.Value != "" {
				t.Errorf("argument %+v", a)
			}
		}
		if labels, all, err := l.Wipe(); err != nil && (all || labels != nil) {
			t.Errorf("Wipe = %v, %t beside %v", labels, all, err)
		}
	})
}
