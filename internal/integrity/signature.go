package integrity

import (
	"context"
	"errors"
	"fmt"

	"talos/internal/fat"
	"talos/internal/secureboot"
	"talos/internal/slot"
)

func (v *verification) kernelSignature(context.Context) (string, error) {
	b, err := v.started()
	if err != nil {
		return "", err
	}
	f, err := b.find(b.slot.KernelPath())
	if err != nil {
		return "", err
	}
	return v.signature(b, f)
}

// loaderSignature looks at each place that firmware may take the loader from.
func (v *verification) loaderSignature(context.Context) (string, error) {
	b, err := v.started()
	if err != nil {
		return "", err
	}
	detail := ""
	var why error
	for _, name := range slot.LoaderPaths() {
		f, err := b.find(name)
		if err != nil {
			return "", err
		}
		said, err := v.signature(b, f)
		if no := reason(""); err != nil && !errors.As(err, &no) {
			return "", fmt.Errorf("%s: %w", f.Name, err)
		}
		detail, why = said, err
	}
	return detail, why
}

// signature says by what the firmware starts a program. Without Secure Boot it
// starts any: then a signature can be good, and nobody says that it is to be
// trusted.
func (v *verification) signature(b *bootFiles, f *fat.File) (string, error) {
	b.read.begin(2 * f.Data.Size()) // it is read once for each question
	signers, err := secureboot.Signers(f.Data, f.Data.Size())
	if err != nil {
		return "", fmt.Errorf("its signature is not good: %w", err)
	}
	if !v.secure {
		if len(signers) == 0 {
			return "", reason("it has none, and Secure Boot is off")
		}
		return "", reason(fmt.Sprintf("Secure Boot is off, so nothing says whether %s, who signed it, is to be trusted", signers[0].Subject.CommonName))
	}
	list, err := v.variable(secureboot.DatabaseVariable)
	if err != nil {
		return "", err
	}
	database, err := secureboot.ParseDatabase(list)
	if err != nil {
		return "", fmt.Errorf("the firmware's db: %w", err)
	}
	by, err := database.Admits(f.Data, f.Data.Size())
	if err != nil {
		return "", fmt.Errorf("the firmware would not start %s: %w", f.Name, err)
	}
	return "admitted by " + by + " in the firmware's db", nil
}
