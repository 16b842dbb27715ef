package rules

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/internal/linux/sysfs"
	"talos/internal/linux/sysfs/recorded"
	"talos/internal/linux/uevent"
)

// subject is a device of the recorded machine, as it is added.
func subject(t *testing.T, tree sysfs.FS, name string) Subject {
	t.Helper()
	dev, err := tree.Device(name)
	if err != nil {
		t.Fatal(err)
	}
	e, ok := uevent.Read(dev, uevent.Add)
	if !ok {
		t.Fatalf("%s has no subsystem", name)
	}
	return Subject{Event: e, Device: dev, Env: e.Env, Name: dev.Name()}
}

func machine(t *testing.T) sysfs.FS {
	return sysfs.FS(filepath.Join(recorded.Lay(t, recorded.Machine), "sys"))
}

func parse(t *testing.T, text ...string) Set {
	t.Helper()
	set, problems := Parse(text)
	if problems != nil {
		t.Fatalf("Parse(%q): %v", text, problems)
	}
	return set
}

// TestApply: rules as people write them, one at a time.
func TestApply(t *testing.T) {
	tree := machine(t)
	const sda, nic = "/class/block/sda", "/class/net/eth2"
	for _, c := range []struct {
		device, rules string
		want          Result // Env is what differs from the device's own
	}{
		{sda, `SUBSYSTEM=="block", KERNEL=="sd?", ENV{DEVTYPE}=="disk", GROUP="43", MODE="0660"`, Result{Group: "43", Mode: "0660"}},
		{sda, `SUBSYSTEM=="block",KERNEL=="vd*|nvme*" , GROUP="43"`, Result{}},
		{sda, `KERNEL!="vd*", OWNER="root"`, Result{Owner: "root"}},
		{sda, `KERNEL=="sd[b-z]", OWNER="root"`, Result{}},
		{sda, `KERNEL=="sd[!b-z]", OWNER="root"`, Result{Owner: "root"}},
		{sda, `KERNEL==i"SDA", OWNER="root"`, Result{Owner: "root"}},
		{sda, `ACTION=="add|change", SYMLINK+="disk/main disk/by-serial/$attr{device/model}"`, Result{Links: []string{"disk/main", "disk/by-serial/QEMUSATA"}}},
		{sda, `ATTR{size}=="131072", SYMLINK+="%k-%n-%M-%m-$number$$%%-$nothing"`, Result{Links: []string{"sda--8-0-__-_nothing"}}},
		{sda, `ATTR{nothing}!="x", OWNER="root"`, Result{}},
		{sda, `ATTRS{model}=="QEMUSATA", OWNER="root"`, Result{Owner: "root"}},
		{sda, `ATTRS{model}=="QEMUSATA ", OWNER="root"`, Result{}}, // blanks count when asked for
		{sda, `SUBSYSTEMS=="pci", DRIVERS=="ahci", ATTRS{vendor}=="0x8086", SYMLINK+="by-$id-$driver"`, Result{Links: []string{"by-0000:00:1f.2-ahci"}}},
		{sda, `SUBSYSTEMS=="scsi", DRIVERS=="ahci", OWNER="root"`, Result{}}, // not of one device
		{sda, `ENV{ID_X}="1"` + "\n" + `ENV{ID_X}=="1", ENV{ID_Y}="$env{ID_X}2", ENV{DISKSEQ}=""`, Result{Env: map[string]string{"ID_X": "1", "ID_Y": "12", "DISKSEQ": "-"}}},
		{sda, `ENV{ID_X}+="a", ENV{ID_X}+="b"`, Result{Env: map[string]string{"ID_X": "a b"}}},
		{sda, `MODE:="0600"` + "\n" + `MODE="0666"`, Result{Mode: "0600"}},
		{sda, `OPTIONS+="link_priority=-5", SYMLINK+="a"`, Result{Priority: -5, Links: []string{"a"}}},
		{sda, `ATTR{queue/scheduler}="none"`, Result{Attrs: []Attr{{"queue/scheduler", "none"}}}},
		{sda, `SYMLINK+="../../etc/shadow /dev/x a//b/./c"`, Result{Links: []string{"etc/shadow", "x", "a/b/c"}}},
		{sda, `OPTIONS="string_escape=none", SYMLINK+="a*b"`, Result{Links: []string{"a*b"}}},
		{sda, `SYMLINK+="a b", SYMLINK-="a"`, Result{Links: []string{"b"}}},
		{sda, `SYMLINK+="a"` + "\n" + `SYMLINK=="a", SYMLINK="b"`, Result{Links: []string{"b"}}},
		{sda, "KERNEL!=\"sda\", GOTO=\"end\"\nOWNER=\"one\"\nGOTO=\"end\"\nOWNER=\"two\"\nLABEL=\"end\"", Result{Owner: "one"}},
		{sda, "KERNEL==\"sda\", GOTO=\"end\"\nOWNER=\"one\"\nLABEL=\"end\", GROUP=\"g\"", Result{Group: "g"}},
		{sda, "KERNEL==\"sda\", \\\n  OWNER=\"one\"", Result{Owner: "one"}},
		{sda, `TEST=="queue/rotational", OWNER="root"`, Result{Owner: "root"}},
		{sda, `TEST!="queue", OWNER="root"`, Result{}},
		{sda, `DRIVER=="", TAG+="systemd", TAGS=="x", OWNER="root"`, Result{Owner: "root"}},
		{sda, `NAME="x"`, Result{Problems: []string{`rule 1, line 1: NAME="x": only network links can be named; a node keeps the kernel's name, and SYMLINK adds one`}}},
		{sda, `MODE="$env{NO}"`, Result{Problems: []string{`rule 1, line 1: MODE="$env{NO}": is "", no octal number`}}},
		{nic, `SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="52:54:00:00:00:02", NAME="lan0"`, Result{Name: "lan0"}},
		{nic, `SUBSYSTEM=="net", KERNEL=="eth*", NAME="this-name-is-too-long"`, Result{Problems: []string{`rule 1, line 1: NAME="this-name-is-too-long": a link's name has 1 to 15 bytes`}}},
		{nic, `NAME="a/b"`, Result{Problems: []string{`rule 1, line 1: NAME="a/b": is no name for a link`}}},
		{nic, `KERNELS=="0000:01:00.0", NAME="$env{INTERFACE}x"`, Result{Name: "eth2x"}},
	} {
		s := subject(t, tree, c.device)
		got := parse(t, c.rules).Apply(s)
		changed := map[string]string{}
		for k, v := range got.Env {
			if s.Env[k] != v {
				changed[k] = v
			}
		}
		for k := range s.Env {
			if _, ok := got.Env[k]; !ok {
				changed[k] = "-"
			}
		}
		if got.Env = changed; len(changed) == 0 {
			got.Env = nil
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s\n(-want +got):\n%s", c.rules, diff)
		}
	}
}

// TestParseErrors: rule, line and token are named, and every problem is told.
func TestParseErrors(t *testing.T) {
	for rule, want := range map[string]string{
		`RUN+="/bin/true"`:                 `rule 1, line 1: RUN+="/bin/true": there are no programs on a node to run`,
		`PROGRAM=="/bin/id", OWNER="x"`:    `rule 1, line 1: PROGRAM=="/bin/id": there are no programs on a node to run`,
		`IMPORT{builtin}="path_id"`:        `rule 1, line 1: IMPORT{builtin}="path_id": there are no programs or files on a node to import from`,
		`KERNEL=="a", SYMLINK+="%c"`:       `rule 1, line 1: SYMLINK+="%c": there are no programs on a node whose result it could be`,
		`KERNEL="a"`:                       `rule 1, line 1: KERNEL="a": can't be assigned, only matched with == or !=`,
		`MODE=="0600"`:                     `rule 1, line 1: MODE=="0600": can't be matched, only assigned`,
		`MODE="rw"`:                        `rule 1, line 1: MODE="rw": want an octal number such as 0660`,
		`MODE+="0600"`:                     `rule 1, line 1: MODE+="0600": can't be assigned with +=`,
		`ATTR=="x"`:                        `rule 1, line 1: ATTR=="x": want a name in braces after it`,
		`KERNEL{x}=="x"`:                   `rule 1, line 1: KERNEL{x}=="x": takes no name in braces`,
		`ATTR{../../x}="1"`:                `rule 1, line 1: ATTR{../../x}="1": leads out of the device's folder`,
		`FOO=="x"`:                         `rule 1, line 1: FOO=="x": no such key`,
		`OPTIONS="last_rule"`:              `rule 1, line 1: OPTIONS="last_rule": want link_priority=N or string_escape=none|replace`,
		`OWNER=i"x"`:                       `rule 1, line 1: OWNER="x": i"…" is for matches`,
		`KERNEL=="a`:                       `rule 1, line 1: KERNEL=="a: the value's closing quote is missing`,
		"# fine\n\nKERNEL==\"a\", owner":   `rule 1, line 3: owner: want KEY or KEY{name}, an operator, and a value in double quotes`,
		`GOTO="nowhere"`:                   `rule 1, line 1: GOTO: no later rule has LABEL="nowhere"`,
		`LABEL=""`:                         `rule 1, line 1: LABEL="": want a name`,
		`OWNER="x" # why`:                  "rule 1, line 1: # why: want KEY or KEY{name}, an operator, and a value in double quotes",
		`KERNEL==a`:                        `rule 1, line 1: KERNEL==a: want KEY or KEY{name}, an operator, and a value in double quotes`,
		strings.Repeat(`x`, 100):           `rule 1, line 1: ` + strings.Repeat(`x`, 40) + `…: want KEY or KEY{name}, an operator, and a value in double quotes`,
		strings.Repeat("#\n", maxText/2+1): `rule 1, line 1: rule: longer than 65536 bytes`,
	} {
		set, problems := Parse([]string{rule})
		if len(problems) != 1 || problems[0].Error() != want || set.Len() != 0 {
			t.Errorf("Parse(%.60s) = %d rules, %v, want %s", rule, set.Len(), problems, want)
		}
	}
	_, problems := Parse([]string{`OWNER="root"`, "RUN=\"a\"\nBAD==\"b\""})
	var second *Error
	if len(problems) != 2 || !errors.As(problems[1], &second) || second.Rule != 2 || second.Line != 2 {
		t.Errorf("problems = %v, want two of the second entry", problems)
	}
}

// TestSubjectStays: applying changes nothing of what it was given.
func TestSubjectStays(t *testing.T) {
	s := subject(t, machine(t), "/class/block/sda")
	s.Links = []string{"disk/by-id/x"}
	parse(t, `ENV{A}="b", SYMLINK-="disk/by-id/x", SYMLINK+="y"`).Apply(s)
	if s.Env["A"] != "" || !cmp.Equal(s.Links, []string{"disk/by-id/x"}) {
		t.Errorf("the subject is now %v, %v", s.Env, s.Links)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a/b", true}, {"a*c", "abbbc", true}, {"a*c", "abbbd", false}, {"?", "ä", true}, {"??", "ä", false},
		{"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false}, {"[]]", "]", true}, {"[", "[", true}, {"[a", "[a", true}, {"[a-]", "-", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{"*a*b*c*", "xaxbxcx", true}, {"*a*b*c*", "xaxcxbx", false}, {"[ä-ö]", "å", true}, {"a\\", "a\\", true}, {"*\xff", "ä\xff", true},
	} {
		if got := Match(c.pattern, c.value); got != c.want {
			t.Errorf("Match(%q, %q) = %t, want %t", c.pattern, c.value, got, c.want)
		}
	}
	began := time.Now()
	Match(strings.Repeat("*a", 1000)+"b", strings.Repeat("a", 2000))
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("a pattern made to be slow took %v", took)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="52:54:00:00:00:02", NAME="lan0"`)
	f.Add("KERNEL!=\"sd*|[a-z]\", GOTO=\"end\"\nATTRS{x}=\"%s{y}$env{Z}%%\", \\\nSYMLINK+=\"a b\"\nLABEL=\"end\"")
	root := recorded.Lay(f, recorded.Machine)
	dev, err := sysfs.FS(filepath.Join(root, "sys")).Device("/class/net/eth2")
	if err != nil {
		f.Fatal(err)
	}
	e, _ := uevent.Read(dev, uevent.Add)
	f.Fuzz(func(t *testing.T, text string) {
		set, problems := Parse(strings.Split(text, "\x00"))
		if problems != nil {
			if set.Len() != 0 {
				t.Errorf("%d rules in spite of %v", set.Len(), problems)
			}
			return
		}
		got := set.Apply(Subject{Event: e, Device: dev, Env: e.Env, Name: "eth2"})
		if got.Name != "" && BadLinkName(got.Name) != "" {
			t.Errorf("the link is named %q", got.Name)
		}
		for _, l := range got.Links {
			if l == "" || l[0] == '/' || filepath.Join("/", l) != "/"+l {
				t.Errorf("link %q", l)
			}
		}
	})
}
