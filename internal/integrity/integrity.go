// Package integrity checks that a node runs what it was started with: that its
// root is, to the last byte, the one whose hash the kernel was told, and that
// the same hash, version and kernel are in the image that starts the machine.
//
// It owns the list of checks and their words. It reads only: the kernel's files
// below /proc and /sys, block devices, the EFI system partition without mounting
// it. What it can't check it says, and why; nothing is good unasked. Against a
// kernel that lies it is no help: that is Secure Boot's.
//
// A Node keeps no state. One call at a time reads disks enough; who serves calls
// sees to it.
package integrity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"talos/internal/linux/dm"
	"talos/internal/verity"
)

// Outcome of a check.
type Outcome string

// The outcomes. NotApplicable is what can't be checked on this node, with the
// reason as its detail.
const (
	OK            Outcome = "ok"
	Failed        Outcome = "failed"
	NotApplicable Outcome = "not applicable"
)

// Event is what a check has come to or, while Outcome is empty, how far it is.
type Event struct {
	Check   string
	Outcome Outcome
	Detail  string
	// Done of Total bytes are read, where much is to be read.
	Done, Total int64
}

// Node is the node that is checked. The zero value is a machine of its own.
type Node struct {
	Container bool   // it shares the kernel of a host
	Version   string // of the running program
	Dir       string // where proc, sys, dev, etc and system are: "" is the root
	Mapper    Mapper // nil is the kernel's
}

// Mapper tells of device-mapper devices by their names.
type Mapper interface {
	Table(name string) ([]dm.Target, error)
	Status(name string) ([]dm.Target, error)
}

type kernelMapper struct{}

func (kernelMapper) Table(name string) ([]dm.Target, error)  { return dm.Table(name) }
func (kernelMapper) Status(name string) ([]dm.Target, error) { return dm.Status(name) }

// path is where a file of the node is.
func (n *Node) path(elem ...string) string {
	return filepath.Join(append([]string{"/", n.Dir}, elem...)...)
}

// text reads one of the kernel's small files.
func (n *Node) text(elem ...string) (string, error) {
	b, err := os.ReadFile(n.path(elem...))
	return strings.TrimSpace(string(b)), err
}

// check is one of the list. What it finds good is its detail.
type check struct {
	name string
	do   func(v *verification, ctx context.Context) (detail string, err error)
}

// A reason says why a check does not apply.
type reason string

func (r reason) Error() string { return string(r) }

// errBefore is the error of a check that needs what one before it has not found.
var errBefore = errors.New("not checked, for a check before it failed")

// verification is one run: what the checks have found for those after them.
type verification struct {
	*Node
	name string // of the check under way
	tell func(Event) error

	root    *verity.Param // what the kernel was told; nil until known
	device  string        // number of the device that the root is read from; "" until known
	secure  bool          // Secure Boot is on
	boot    *bootFiles    // what starts the machine; nil until known
	noBoot  reason        // why nothing can be said of that
	options string        // of the boot entry
	line    string        // what the kernel should have been told; "" until known
}

// Verify makes all checks and tells of each when it begins, how far it is, and
// what it has come to. The error is that of tell or of ctx: the checks are then
// not complete.
func (n *Node) Verify(ctx context.Context, tell func(Event) error) error {
	v := &verification{Node: n, tell: tell}
	defer func() {
		if v.boot != nil {
			v.boot.disk.Close()
		}
	}()
	for _, c := range n.checks() {
		v.name = c.name
		if err := tell(Event{Check: c.name}); err != nil {
			return err
		}
		detail, err := c.do(v, ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", c.name, ctx.Err())
		}
		if errTell := (*tellError)(nil); errors.As(err, &errTell) {
			return errTell.error
		}
		e := Event{Check: c.name, Outcome: OK, Detail: detail}
		var why reason
		switch {
		case errors.As(err, &why):
			e.Outcome, e.Detail = NotApplicable, err.Error()
		case err != nil:
			e.Outcome, e.Detail = Failed, err.Error()
		}
		if err := tell(e); err != nil {
			return err
		}
	}
	return nil
}

// checks are those of the node, in the order in which they build on each other.
func (n *Node) checks() []check {
	if n.Container {
		return containerChecks()
	}
	return []check{
		{"root hash", (*verification).rootHash},
		{"root device", (*verification).rootDevice},
		{"root data", (*verification).rootData},
		{"version", (*verification).version},
		{"kernel modules", (*verification).modules},
		{"Secure Boot", (*verification).secureBoot},
		{"lockdown", (*verification).lockdown},
		{"boot entry", (*verification).bootEntry},
		{"kernel image", (*verification).kernelImage},
		{"kernel arguments", (*verification).kernelArguments},
		{"kernel image signature", (*verification).kernelSignature},
		{"boot loader signature", (*verification).loaderSignature},
	}
}

// tellError is an error of tell that comes up through a check.
type tellError struct{ error }

// version holds the root and the running program to one version.
func (v *verification) version(context.Context) (string, error) {
	text, err := v.text("etc", "os-release")
	if err != nil {
		return "", err
	}
	return v.sameVersion("the root", text)
}

// sameVersion says whether an os-release is of the running program's version.
func (v *verification) sameVersion(what, osRelease string) (string, error) {
	for line := range strings.Lines(osRelease) {
		if version, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_ID="); ok {
			if version = strings.Trim(version, `"'`); version != v.Version {
				return "", fmt.Errorf("%s is %s, and %s runs", what, version, v.Version)
			}
			return version, nil
		}
	}
	return "", fmt.Errorf("%s does not say its version", what)
}
