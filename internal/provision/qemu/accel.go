package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"talos/internal/loop"
)

// Accel is how a machine's processors are run.
type Accel string

// By the host's processors, or emulated.
const (
	KVM      Accel = "kvm"
	Emulated Accel = "tcg"
)

// trialTime is how long the firmware may take to show that it runs. Emulated
// it takes five seconds.
const trialTime = 15 * time.Second

func (a Accel) accel() string {
	if a == KVM {
		return "kvm"
	}
	return "tcg,thread=multi"
}

func (a Accel) cpu() string {
	if a == KVM {
		return "host"
	}
	return "max"
}

// Choose finds out how machines can be run here. The reason says why they are
// emulated. That /dev/kvm exists means little: it is there, too, where it runs
// some instructions only. So the firmware is run for a moment.
func Choose(ctx context.Context, f Firmware) (a Accel, reason string) {
	if err := kvmPossible("/proc/cpuinfo", "/dev/kvm"); err != nil {
		return Emulated, err.Error()
	}
	if err := trial(ctx, f, KVM); err != nil {
		return Emulated, "KVM does not run the firmware: " + err.Error()
	}
	return KVM, ""
}

// kvmPossible looks for what KVM cannot be without.
func kvmPossible(cpuinfo, device string) error {
	data, err := os.ReadFile(cpuinfo)
	if err != nil {
		return err
	}
	if !virtualizes(data) {
		return errors.New("the processor has no hardware virtualization (vmx or svm), or it is turned off")
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// virtualizes looks for the flags of VT-x and AMD-V.
func virtualizes(cpuinfo []byte) bool {
	for line := range bytes.Lines(cpuinfo) {
		name, flags, _ := strings.Cut(string(line), ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		for _, f := range strings.Fields(flags) {
			if f == "vmx" || f == "svm" {
				return true
			}
		}
	}
	return false
}

// trial runs the firmware until it says something on the console.
func trial(ctx context.Context, f Firmware, a Accel) (err error) {
	dir, err := os.MkdirTemp("", "talos-kvm")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	v := VM{
		Name: "trial", UUID: "00000000-0000-4000-8000-000000000001", Serial: "trial", Dir: dir, Log: filepath.Join(dir, "console"),
		Memory: 256 << 20, Accel: a, Firmware: f,
	}
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	if _, err := v.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Kill(context.WithoutCancel(ctx))) }()
	for {
		if said, err := os.ReadFile(v.Log); err == nil && bytes.Contains(said, []byte("BdsDxe")) {
			return nil
		}
		if _, running := v.Running(); !running {
			return fmt.Errorf("qemu ended: %s", lastLine(v.stderr()))
		}
		if !loop.Sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("the firmware has not come up within %v", trialTime)
		}
	}
}
