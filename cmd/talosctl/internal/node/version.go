package node

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
	"talos/client"
	"talos/cmd/talosctl/internal/cli"
	"talos/internal/version"
)

func versionCommand(a *cli.App) *cobra.Command {
	var onlyClient, short bool
	cmd := &cobra.Command{Use: "version", Short: "Show the versions of this client and of the nodes", Args: cobra.NoArgs}
	format := cli.OutputFlag(cmd)
	cmd.Flags().BoolVar(&onlyClient, "client", false, "only this client's")
	cmd.Flags().BoolVar(&short, "short", false, "only the version numbers")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var answers []client.Answer[*machine.Version]
		var failed error
		if !onlyClient {
			answers, failed = cli.Ask(cmd.Context(), a, cli.Node, func(ctx context.Context, c *client.Client) (*machine.VersionResponse, error) {
				return c.Machine.Version(ctx, &emptypb.Empty{})
			})
		}
		if err := printVersions(a, *format, short, answers); err != nil {
			return err
		}
		return failed
	}
	return cmd
}

func ownVersion() *machine.VersionInfo {
	return &machine.VersionInfo{
		Tag: version.Tag, Sha: version.SHA, Built: version.Built,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
	}
}

func printVersions(a *cli.App, format cli.Format, short bool, answers []client.Answer[*machine.Version]) error {
	own := ownVersion()
	if format != cli.TableFormat {
		servers := []cli.Doc{}
		for _, s := range answers {
			servers = append(servers, cli.NodeDoc(s.Node, s.Message))
		}
		return a.PrintDocs(format, cli.Doc{{Key: "client", Value: cli.MessageDoc(own)}, {Key: "servers", Value: servers}})
	}
	if short {
		fmt.Fprintf(a.Out, "Client: %s %s\n", version.Name, own.GetTag())
		for _, s := range answers {
			fmt.Fprintf(a.Out, "Server: %s %s (%s)\n", version.Name, s.Message.GetVersion().GetTag(), s.Node)
		}
		return nil
	}
	fmt.Fprintln(a.Out, "Client:")
	printVersion(a, own)
	for _, s := range answers {
		fmt.Fprintf(a.Out, "Server:\n    Node:        %s\n", s.Node)
		printVersion(a, s.Message.GetVersion())
		if p := s.Message.GetPlatform(); p.GetName() != "" {
			fmt.Fprintf(a.Out, "    Platform:    %s (%s)\n", p.GetName(), p.GetMode())
		}
	}
	return nil
}

func printVersion(a *cli.App, v *machine.VersionInfo) {
	fmt.Fprintf(a.Out, "    Tag:         %s\n    SHA:         %s\n", v.GetTag(), v.GetSha())
	if v.GetBuilt() != "" {
		fmt.Fprintf(a.Out, "    Built:       %s\n", v.GetBuilt())
	}
	fmt.Fprintf(a.Out, "    Go version:  %s\n    OS/Arch:     %s/%s\n", v.GetGoVersion(), v.GetOs(), v.GetArch())
}
