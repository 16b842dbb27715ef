package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"talos/internal/loop"
)

const tpmProgram = "swtpm"

func (v VM) tpmRecord() string { return filepath.Join(v.run(), "tpm.json") }
func (v VM) tpmLog() string    { return filepath.Join(v.run(), "tpm.log") }

// startTPM starts the TPM, which ends by itself when the machine does.
func (v VM) startTPM(ctx context.Context) error {
	log, err := os.OpenFile(v.tpmLog(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := spawn(v.tpmRecord(), v.run(), tpmProgram, []string{
		"socket", "--tpm2", "--tpmstate", "dir=" + v.tpmDir(), "--ctrl", "type=unixio,path=" + tpmSocket, "--terminate",
	}, nil, log, log)
	if err != nil {
		return fmt.Errorf("start the TPM of %s: %w", v.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		if _, err := os.Stat(filepath.Join(v.run(), tpmSocket)); err == nil {
			return nil
		}
		if !p.Alive() {
			p.Reap()
			return fmt.Errorf("start the TPM of %s: %s", v.Name, lastLine(v.tpmLog()))
		}
		if !loop.Sleep(ctx, 5*time.Millisecond) {
			return fmt.Errorf("start the TPM of %s: no socket: %w", v.Name, ctx.Err())
		}
	}
}
