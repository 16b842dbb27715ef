package local

import (
	"fmt"

	"github.com/spf13/cobra"

	"talos/cmd/talosctl/internal/cli"
	"talos/internal/artefact"
	"talos/internal/secureboot"
)

func imageCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("image", "Work with images of the operating system")
	cmd.AddCommand(verifyImageCommand(a))
	return cmd
}

func verifyImageCommand(a *cli.App) *cobra.Command {
	var key, certificate string
	cmd := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Check that images are whole, signed, and boot the root they are made for",
		Long: `Check that images are whole, signed, and boot the root they are made for.

FILE is a list of checksums (SHA256SUMS), a kernel image, an ISO, a raw disk
image, a root (with the file ending in .root beside it) or an initramfs. What lies
inside is checked as well: of an ISO its kernel image, the root that this starts,
and what it would install.

A check for which there is no key or certificate is skipped, and does not fail.
What nodes run is checked by "verify".`,
		Example: "  " + a.Name + " image verify --key checksums.pub SHA256SUMS\n" +
			"  " + a.Name + " image verify --certificate db.crt talos-amd64.iso",
		Args: cobra.MinimumNArgs(1),
	}
	format := cli.OutputFlag(cmd)
	cmd.Flags().StringVar(&key, "key", "", "public key (PEM) that signed lists of checksums")
	cmd.Flags().StringVar(&certificate, "certificate", "", "certificate (PEM or DER) that signed for Secure Boot, db.crt")
	cmd.RunE = func(_ *cobra.Command, files []string) error {
		trust, err := readTrust(key, certificate)
		if err != nil {
			return err
		}
		var results []artefact.Result
		for _, file := range files {
			found, err := artefact.Check(file, trust)
			if err != nil {
				return err
			}
			results = append(results, found...)
		}
		return printResults(a, *format, results)
	}
	return cmd
}

func readTrust(key, certificate string) (t artefact.Trust, err error) {
	if key != "" {
		if t.Checksums, err = secureboot.ReadChecksumsPublicKey(key); err != nil {
			return t, err
		}
	}
	if certificate != "" {
		t.Certificate, err = secureboot.ReadCertificate(certificate)
	}
	return t, err
}

func printResults(a *cli.App, format cli.Format, results []artefact.Result) error {
	failed := 0
	docs := []any{}
	table := cli.NewTable(a.Out, "FILE", "PART", "CHECK", "RESULT", "DETAIL")
	for _, r := range results {
		if r.Outcome == artefact.Failed {
			failed++
		}
		table.Row(r.File, r.Part, r.Check, string(r.Outcome), r.Detail)
		docs = append(docs, cli.Doc{
			{Key: "file", Value: r.File}, {Key: "part", Value: r.Part}, {Key: "check", Value: r.Check},
			{Key: "result", Value: r.Outcome}, {Key: "detail", Value: r.Detail},
		})
	}
	print := table.Flush
	if format != cli.TableFormat {
		print = func() error { return a.PrintDocs(format, docs...) }
	}
	if err := print(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(results))
	}
	return nil
}
