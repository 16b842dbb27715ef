package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"talos/client"
)

// InsecureFlags lets cmd speak to a machine that waits for its first configuration.
func (a *App) InsecureFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVarP(&a.insecure, "insecure", "i", false, "speak to a machine that waits for its first configuration: named by -n, without a talosconfig")
	cmd.Flags().StringSliceVar(&a.fingerprints, "cert-fingerprint", nil, "with --insecure: the fingerprint that the machine's console shows (repeatable)")
	return cmd
}

// checkInsecure refuses flags that contradict each other.
func (a *App) checkInsecure() error {
	switch {
	case !a.insecure && len(a.fingerprints) > 0:
		return Usage("--cert-fingerprint goes with --insecure")
	case !a.insecure:
		return nil
	case len(a.Nodes) > 0 && len(a.Endpoints) > 0:
		return Usage("--insecure speaks to the machine itself, which passes nothing on: leave out --endpoints")
	case len(a.Nodes)+len(a.Endpoints) == 0:
		return Usage("--insecure takes nothing from a talosconfig: name the machine's address with -n")
	case len(a.Nodes)+len(a.Endpoints) > 1:
		return Usage("--insecure goes to one machine at a time, %d are named", len(a.Nodes)+len(a.Endpoints))
	}
	return nil
}

// connectInsecure makes a client for a machine in maintenance mode.
func (a *App) connectInsecure(ctx context.Context) (*client.Client, error) {
	machine := slices.Concat(a.Nodes, a.Endpoints)
	return client.New(ctx, client.Options{Insecure: true, Nodes: machine, Fingerprints: a.fingerprints, Seen: func(fingerprint string) {
		a.Note("warning: who %s is was not checked; compare this with its console, or give it with --cert-fingerprint: %s", machine[0], fingerprint)
	}})
}
