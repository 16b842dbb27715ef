package local

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"talos/client/talosconfig"
	"talos/cmd/talosctl/internal/cli"
	"talos/internal/secureboot"
)

func genSecureBootCommand(a *cli.App) *cobra.Command {
	var output, name string
	var others []string
	var force bool
	cmd := &cobra.Command{
		Use:   "secureboot",
		Short: "Make the keys that sign images, and what tells machines to trust them",
		Long: `Make the keys that sign images, and what tells machines to trust them.

For each of PK, KEK and db, the keys of Secure Boot, the folder gets the private
key, the certificate (PEM and DER), the list that holds it (.esl) and the signed
list by which firmware takes it (.auth). checksums.key signs the list of
checksums of a release, checksums.pub checks it.

Who has a private key can make images that these machines start. Keep the folder
where only the building of images gets at it.`,
		Example: "  " + a.Name + " gen secureboot -o keys/\n  imager iso -secureboot keys/",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var admitted []*x509.Certificate
			for _, file := range others {
				c, err := secureboot.ReadCertificate(file)
				if err != nil {
					return err
				}
				admitted = append(admitted, c)
			}
			files, err := secureboot.Generate(name, admitted, time.Now())
			if err != nil {
				return err
			}
			return writeKeys(a, output, files, force)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "secureboot", "folder to write to")
	cmd.Flags().StringVar(&name, "common-name", "Talos Secure Boot", "what the certificates' names begin with")
	cmd.Flags().StringArrayVar(&others, "db-certificate", nil, "certificate that the machines trust as well, such as that of a network card's firmware (repeatable)")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "overwrite files")
	return cmd
}

// writeKeys looks at all places before it writes the first file.
func writeKeys(a *cli.App, dir string, files []secureboot.File, force bool) error {
	for _, f := range files {
		if err := refuseExisting(filepath.Join(dir, f.Name), force); err != nil {
			return err
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		if err := talosconfig.WritePrivate(path, f.Data); err != nil {
			return err
		}
		if !f.Private {
			if err := os.Chmod(path, 0o644); err != nil {
				return fmt.Errorf("write %s: %w", path, err)
			}
		}
	}
	a.Note("wrote %d files to %s", len(files), dir)
	return nil
}
