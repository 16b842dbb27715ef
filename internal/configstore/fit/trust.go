package fit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"talos/config"
)

// disks looks for the disk to install to.
func (c *checker) disks() {
	install := config.Of(config.Of(c.cfg.Machine).Install)
	name, ok := strings.CutPrefix(install.Disk, "/dev/")
	if c.Disks == nil || !ok || strings.Contains(name, "/") { // a link such as /dev/disk/by-id/…: resolved when installing
		return
	}
	if !slices.Contains(c.Disks, name) {
		c.add(Misfit, "machine.install.disk", fmt.Sprintf("this machine has no disk /dev/%s; it has %s", name, strings.Join(c.Disks, ", ")))
	}
}

// authority looks whether certificates that are in use stay valid.
func (c *checker) authority() {
	was := config.Of(config.Of(c.before.Machine).CA).Crt
	machine := config.Of(c.cfg.Machine)
	if len(was) == 0 || bytes.Equal(was, config.Of(machine.CA).Crt) {
		return
	}
	for _, a := range machine.AcceptedCAs {
		if bytes.Contains(a.Crt, bytes.TrimSpace(was)) {
			return
		}
	}
	c.add(Lockout, "machine.ca", "the present authority is replaced and not in machine.acceptedCAs: certificates that it signed, yours too, are refused")
}

// names looks for names that clients may use.
func (c *checker) names() {
	now := config.Of(c.cfg.Machine).CertSANs
	var gone []string
	for _, name := range config.Of(c.before.Machine).CertSANs {
		if !slices.Contains(now, name) {
			gone = append(gone, name)
		}
	}
	if len(gone) > 0 {
		c.add(Note, "machine.certSANs", fmt.Sprintf("clients that reach this machine as %s will not trust it any more", strings.Join(gone, ", ")))
	}
	if was, is := c.before.Endpoint(), c.cfg.Endpoint(); c.before.Cluster != nil && was.Host != is.Host {
		c.add(Note, "cluster.controlPlane.endpoint", fmt.Sprintf("kubeconfigs made before lead to %s, not to %s", was.Host, is.Host))
	}
}
