package qemu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Needs are what machines are going to have, beyond the plain ones.
type Needs struct {
	TPM, SecureBoot bool
}

// Preflight says all that this host lacks for such machines, and which packages
// of Debian have it.
func Preflight(needs Needs) error {
	var missing, packages []string
	lacks := func(what, in string) {
		missing = append(missing, what)
		if !slices.Contains(packages, in) {
			packages = append(packages, in)
		}
	}
	for _, p := range []struct {
		program, in string
		needed      bool
	}{
		{Program, "qemu-system-x86", true}, {tpmProgram, "swtpm", needs.TPM},
	} {
		if _, err := exec.LookPath(p.program); p.needed && err != nil {
			lacks("program "+p.program, p.in)
		}
	}
	if _, err := FindFirmware(needs.SecureBoot); err != nil {
		lacks("UEFI firmware", "ovmf")
	}
	var errs []error
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("virtual machines need what is not on this host: %s; install it, on Debian with `apt-get install %s`",
			strings.Join(missing, ", "), strings.Join(packages, " ")))
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("virtual machines need network links of the kind tap: %w", err))...)
	}
	return errors.Join(append(errs, f.Close())...)
}
