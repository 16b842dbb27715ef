//go:build e2e

package machine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"talos/config"
	"talos/internal/layout"
	"talos/internal/provision/qemu"
)

// long says that the long series are wanted: SOAK=1, as `make soak` has it.
var long = os.Getenv("SOAK") == "1"

// few is how often something random is done: not so often, or in a long series.
func few(short, soak int) int {
	if long {
		return soak
	}
	return short
}

// chance is where a test has what is random from: SEED repeats a run.
func (l *lab) chance() *rand.Rand {
	l.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			l.Fatal(err)
		}
	}
	l.Logf("SEED=%d repeats this", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// owned is a machine with the ISO in its drive and one disk, and whose it
// becomes.
type owned struct {
	*box
	owner *cluster
	file  string // of its configuration, which names the disk
	turn  time.Time
}

// own describes such a machine, and starts what is around it.
func (l *lab) own(more func(*qemu.VM)) *owned {
	l.Helper()
	l.lease("box")
	l.tellTime()
	o := &owned{}
	o.box = l.machine(func(v *qemu.VM) {
		v.CD = l.image("talos-amd64.iso")
		more(v)
	})
	o.belong()
	return o
}

// belong makes it another owner's.
func (o *owned) belong() {
	o.lab.Helper()
	o.owner = o.lab.cluster()
	o.file = o.lab.file("machine.yaml", o.owner.configuration(func(c *config.Config) { c.Machine.Install = &config.Install{Disk: "/dev/vda"} }))
}

// give puts a disk into the machine in place of the one that it had. Its
// firmware remembers nothing of that one.
func (o *owned) give(path string) {
	o.lab.Helper()
	for _, old := range o.Disks {
		if err := os.Remove(old.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			o.lab.Fatal(err)
		}
	}
	o.Disks = []qemu.Disk{{Path: path, Size: diskSize}}
	o.Dir = path + ".box"
}

// diskSize is enough for an installation.
const diskSize = 4 << 30

// power turns the machine on.
func (o *owned) power() {
	o.lab.Helper()
	o.on()
	o.turn = time.Now()
}

// What the console shows when the machine has come to where a person can go on.
const (
	takesConfiguration   = "maintenance mode: the API takes a configuration"
	configurationInForce = "configuration in force"
)

// comes waits until the machine is in maintenance mode or configured, says
// which, and looks whether it is that altogether: a machine without a
// configuration can be installed, without leave to wipe anything; one with a
// configuration has one of documents, whole, and serves its owner.
func (o *owned) comes(documents ...[]byte) (configured bool) {
	o.lab.Helper()
	o.lab.eventually(soon, func() error {
		text := o.console()
		if configured = strings.Contains(text, configurationInForce); configured || strings.Contains(text, takesConfiguration) {
			return nil
		}
		return errors.New("the console shows neither maintenance mode nor a configuration")
	})
	if !configured {
		o.stranger(o.fingerprint()).sees([]string{"install on /dev/vda"}, "apply-config", "--dry-run", "-o", "json", "-f", o.file)
		return false
	}
	o.owner.sees([]string{"vda"}, "get", "systemdisk")
	if got := o.owner.sees(nil, "read", layout.ConfigFile); !slices.ContainsFunc(documents, func(d []byte) bool { return string(d) == got }) {
		o.lab.Fatalf("the machine's configuration is none that it was given: %d bytes", len(got))
	}
	return true
}

// apply hands the machine its configuration.
func (o *owned) apply() {
	o.lab.Helper()
	o.stranger(o.fingerprint()).applies(o.file)
	o.forget()
}

// moment is when the power goes.
type moment int

const (
	startingISO moment = iota
	installing
	startingDisk
	moments // how many there are
)

func (m moment) String() string {
	return [...]string{"the start from the ISO", "the installation", "the start from the disk"}[m]
}

// TestPowerCuts cuts the power at random moments of starts and installations:
// always the machine comes back without a configuration, and can be installed,
// or with the one that it was given; and in the end it is installed.
//
// The power is QEMU's, killed: what it has written is in the host's memory and
// stays. So this is a machine that stops anywhere, and loses nothing that it has
// written. What a disk loses that has not been told to keep it, TestEveryFlush
// shows.
func TestPowerCuts(t *testing.T) {
	l := enter(t)
	if l == nil {
		return
	}
	o := l.own(func(*qemu.VM) {})
	c := &cutter{owned: o, rng: l.chance(), seen: map[string]int{}}
	c.took = [moments]time.Duration{startingISO: 30 * time.Second, installing: 15 * time.Second, startingDisk: 30 * time.Second} // until they are measured
	n := few(int(moments), 50)
	for i := range n {
		c.cut(i, moment(i)%moments)
	}
	if !c.configured {
		c.installs()
		c.arrives()
	}
	if !c.configured {
		t.Error("the machine is not installed in the end")
	}
	t.Logf("%d cuts left: %v", n, c.seen)
}

// cutter cuts a machine's power.
type cutter struct {
	*owned
	rng        *rand.Rand
	took       [moments]time.Duration // as long as it lasted when nobody cut it
	configured bool
	seen       map[string]int
}

// cut leads to a moment, cuts the power there, and looks what the machine comes
// back as.
func (c *cutter) cut(i int, m moment) {
	c.lab.Helper()
	switch m {
	case startingISO:
		c.off()
		c.give(filepath.Join(c.lab.dir, fmt.Sprintf("cut-%d", i)))
		c.belong()
		c.power()
	case installing:
		c.apply()
	case startingDisk:
		if c.configured {
			c.off()
			c.power()
			c.shows("Linux version")
		} else {
			c.installs()
		}
	}
	after := time.Duration(c.rng.Int64N(int64(c.took[m])))
	time.Sleep(after) // a moment, not a wait for something
	c.off()
	last := lastLine(c.console())
	c.power()
	c.arrives()
	what := map[bool]string{false: "maintenance mode", true: "its configuration"}[c.configured]
	c.lab.Logf("cut %d, in %v after %v (%s): %s", i, m, after.Round(time.Millisecond), last, what)
	c.seen[fmt.Sprintf("%v: %s", m, what)]++
	if m == startingISO && c.configured || m == startingDisk && !c.configured {
		c.lab.Fatalf("after a power cut in %v the machine comes to %s", m, what)
	}
}

// arrives waits for where the machine comes to.
func (c *cutter) arrives() {
	c.lab.Helper()
	c.configured = c.comes(c.lab.read(c.file))
	if c.configured {
		c.took[startingDisk] = time.Since(c.turn)
	} else {
		c.took[startingISO] = time.Since(c.turn)
	}
}

// installs hands the machine its configuration and waits until it starts from
// its disk.
func (c *cutter) installs() {
	c.lab.Helper()
	c.apply()
	began := time.Now()
	c.shows("Linux version")
	c.turn = time.Now()
	c.took[installing] = c.turn.Sub(began)
}

// lastLine is what was shown last, as far as it is text.
func lastLine(text string) string {
	for _, line := range slices.Backward(strings.Split(text, "\n")) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, line))
		if line != "" {
			return line[:min(len(line), 120)]
		}
	}
	return "nothing on the console"
}
