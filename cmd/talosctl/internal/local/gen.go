package local

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"talos/client/talosconfig"
	"talos/cmd/talosctl/internal/cli"
	"talos/config"
)

func genCommand(a *cli.App) *cobra.Command {
	cmd := cli.Group("gen", "Generate configurations and secrets")
	cmd.AddCommand(genConfigCommand(a), genSecretsCommand(a), genSecureBootCommand(a))
	return cmd
}

func genSecretsCommand(a *cli.App) *cobra.Command {
	var output string
	var from origin
	var force bool
	cmd := &cobra.Command{
		Use:   "secrets",
		Short: "Make the secrets of a cluster, from which all its configurations can be made",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			secrets, err := makeSecrets(from)
			if err != nil {
				return err
			}
			data, err := secrets.Bytes()
			if err != nil {
				return err
			}
			return writeOut(a, output, data, force)
		},
	}
	cmd.Flags().StringVarP(&output, "output-file", "o", "secrets.yaml", "file to write (- is standard output)")
	cmd.Flags().StringVar(&from.config, "from-controlplane-config", "", "take them from a control plane node's configuration")
	cmd.Flags().StringVarP(&from.pki, "from-kubernetes-pki", "p", "", "take Kubernetes's and etcd's authorities from a folder such as /etc/kubernetes/pki")
	cmd.Flags().StringVarP(&from.token, "kubernetes-bootstrap-token", "t", "", "with --from-kubernetes-pki: the token that kubelets join with (default: a new one)")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "overwrite the file")
	return cmd
}

// origin is where the secrets of an existing cluster are.
type origin struct{ config, pki, token string }

func makeSecrets(from origin) (*config.Secrets, error) {
	switch {
	case from.config != "" && from.pki != "":
		return nil, cli.Usage("--from-controlplane-config and --from-kubernetes-pki exclude each other")
	case from.token != "" && from.pki == "":
		return nil, cli.Usage("--kubernetes-bootstrap-token needs --from-kubernetes-pki")
	case from.pki != "":
		return secretsFromPKI(from.pki, from.token)
	case from.config == "":
		return config.NewSecrets(time.Now)
	}
	data, err := os.ReadFile(from.config)
	if err != nil {
		return nil, err
	}
	cfg, _, err := config.Load(from.config, data)
	if err != nil {
		return nil, err
	}
	secrets, err := config.SecretsFromConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from.config, err)
	}
	return secrets, nil
}

// secretsFromPKI are new secrets with the authorities of a cluster that
// kubeadm made.
func secretsFromPKI(dir, token string) (*config.Secrets, error) {
	s, err := config.NewSecrets(time.Now)
	if err != nil {
		return nil, err
	}
	if token != "" {
		s.Secrets.BootstrapToken = token
	}
	for name, into := range map[string]*config.Base64{
		"ca.crt": &s.Certs.K8s.Crt, "ca.key": &s.Certs.K8s.Key, "sa.key": &s.Certs.K8sServiceAccount.Key,
		"front-proxy-ca.crt": &s.Certs.K8sAggregator.Crt, "front-proxy-ca.key": &s.Certs.K8sAggregator.Key,
		"etcd/ca.crt": &s.Certs.Etcd.Crt, "etcd/ca.key": &s.Certs.Etcd.Key,
	} {
		if *into, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	data, err := s.Bytes()
	if err != nil {
		return nil, err
	}
	return config.LoadSecrets(dir, data) // checks that they fit together
}

// writeOut writes a file of secrets, or standard output for -.
func writeOut(a *cli.App, path string, data []byte, force bool) error {
	if path == "-" {
		_, err := a.Out.Write(data)
		return err
	}
	if err := refuseExisting(path, force); err != nil {
		return err
	}
	if err := talosconfig.WritePrivate(path, data); err != nil {
		return err
	}
	a.Note("wrote %s", path)
	return nil
}

// releaseVersion is what a release is called, with or without a v before it.
var releaseVersion = regexp.MustCompile(`^v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$`)

// The files that gen config makes.
var outputTypes = []string{"controlplane", "worker", "talosconfig"}

// generator carries out gen config.
type generator struct {
	a                             *cli.App
	in                            config.Input
	secrets                       string
	patches, controlPlane, worker []string
	mirrors                       []string
	types                         []string
	output                        string
	force                         bool
	discovery, kubespan           bool
}

func genConfigCommand(a *cli.App) *cobra.Command {
	g := &generator{a: a}
	cmd := &cobra.Command{
		Use:   "config NAME ENDPOINT",
		Short: "Make the configurations of a cluster's nodes, and the talosconfig for it",
		Long: `Make the configurations of a cluster's nodes, and the talosconfig for it.

ENDPOINT is the URL under which the Kubernetes API will be, such as
https://10.5.0.1:6443. The files are controlplane.yaml, worker.yaml and
talosconfig, in the folder that --output names. All hold keys.`,
		Example: "  " + a.Name + " gen secrets\n  " + a.Name + " gen config demo https://10.5.0.1:6443 --with-secrets secrets.yaml -o demo/",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			g.in.ClusterName, g.in.Endpoint, g.in.Endpoints = args[0], args[1], a.Endpoints
			return g.run()
		},
	}
	f := cmd.Flags()
	f.StringVar(&g.secrets, "with-secrets", "", "secrets of the cluster, as gen secrets makes them (default: new ones)")
	f.StringVar(&g.in.KubernetesVersion, "kubernetes-version", config.DefaultKubernetesVersion, "version of Kubernetes")
	f.StringSliceVar(&g.in.AdditionalSANs, "additional-sans", nil, "further names and addresses for the certificates of the APIs")
	f.StringVar(&g.in.DNSDomain, "dns-domain", "cluster.local", "domain of the cluster")
	f.StringVar(&g.in.InstallDisk, "install-disk", "", "disk to install to")
	f.StringVar(&g.in.InstallImage, "install-image", "", "image to install")
	f.StringArrayVar(&g.mirrors, "registry-mirror", nil, "mirror of a registry, as HOST=URL (repeatable)")
	f.BoolVar(&g.discovery, "with-cluster-discovery", true, "let nodes find each other through the cluster")
	f.BoolVar(&g.kubespan, "with-kubespan", false, "encrypt traffic between nodes with WireGuard: refused, as nothing would do it")
	for name, text := range map[string]string{"with-docs": "comments in the files", "with-examples": "examples in the files"} {
		f.Bool(name, false, text+": there are none")
		_ = f.MarkHidden(name) // the flag is there
	}
	f.String("talos-version", "", "for which version: there is one form")
	_ = f.MarkHidden("talos-version") // the flag is there
	f.StringArrayVar(&g.patches, "config-patch", nil, "change all configurations: a patch, or @FILE (repeatable)")
	f.StringArrayVar(&g.controlPlane, "config-patch-control-plane", nil, "change the control plane's configuration (repeatable)")
	f.StringArrayVar(&g.worker, "config-patch-worker", nil, "change the workers' configuration (repeatable)")
	f.StringSliceVarP(&g.types, "output-types", "t", outputTypes, "which files to make")
	f.StringVarP(&g.output, "output", "o", "", "folder to write to; with one type its file, or - for standard output (default: here)")
	f.BoolVarP(&g.force, "force", "f", false, "overwrite files")
	return cmd
}

func (g *generator) run() error {
	if len(g.types) == 0 {
		return cli.Usage("--output-types is empty: want some of %s", strings.Join(outputTypes, ", "))
	}
	for i, t := range g.types {
		if !slices.Contains(outputTypes, t) {
			return cli.Usage("--output-types %q is none of %s", t, strings.Join(outputTypes, ", "))
		}
		if slices.Contains(g.types[:i], t) {
			return cli.Usage("--output-types names %s twice", t)
		}
	}
	if !releaseVersion.MatchString(g.in.KubernetesVersion) {
		return cli.Usage("--kubernetes-version %q is not a version such as %s", g.in.KubernetesVersion, config.DefaultKubernetesVersion)
	}
	if g.kubespan {
		return cli.Usage("--with-kubespan: traffic between nodes is not encrypted with WireGuard")
	}
	if err := g.readInput(); err != nil {
		return err
	}
	if g.output == "-" && len(g.types) != 1 {
		return cli.Usage("--output - is for one file: choose it with --output-types")
	}
	bundle, err := config.Generate(g.in)
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	if files["talosconfig"], err = clientConfig(bundle.Client).Bytes(); err != nil {
		return err
	}
	if files["controlplane"], err = g.patched(bundle.ControlPlane, g.controlPlane); err != nil {
		return fmt.Errorf("control plane configuration: %w", err)
	}
	if files["worker"], err = g.patched(bundle.Worker, g.worker); err != nil {
		return fmt.Errorf("worker configuration: %w", err)
	}
	return g.write(files)
}

func (g *generator) readInput() error {
	for _, m := range g.mirrors {
		host, url, ok := strings.Cut(m, "=")
		if !ok {
			return cli.Usage("--registry-mirror %q is not HOST=URL", m)
		}
		if g.in.RegistryMirrors == nil {
			g.in.RegistryMirrors = map[string]config.RegistryMirror{}
		}
		mirror := g.in.RegistryMirrors[host]
		mirror.Endpoints = append(mirror.Endpoints, url)
		g.in.RegistryMirrors[host] = mirror
	}
	if g.secrets == "" {
		var err error
		g.in.Secrets, err = config.NewSecrets(time.Now)
		return err
	}
	data, err := os.ReadFile(g.secrets)
	if err != nil {
		return err
	}
	g.in.Secrets, err = config.LoadSecrets(g.secrets, data)
	return err
}

// patched is a configuration after the patches, checked.
func (g *generator) patched(c *config.Config, more []string) ([]byte, error) {
	data, err := c.Bytes()
	if err != nil {
		return nil, err
	}
	patches := slices.Concat(g.patches, more)
	if !g.discovery {
		patches = append([]string{"cluster: {discovery: {enabled: false}}"}, patches...)
	}
	if len(patches) == 0 {
		return data, nil
	}
	if data, err = cli.Patch(data, patches); err != nil {
		return nil, err
	}
	_, warnings, err := config.Load("patched configuration", data)
	for _, w := range warnings {
		g.a.Note("warning: %v", w)
	}
	return data, err
}

// clientConfig is the talosconfig for a generated client.
func clientConfig(c config.Client) *talosconfig.Config {
	return &talosconfig.Config{Context: c.Context, Contexts: map[string]*talosconfig.Context{c.Context: {
		Endpoints: orEmpty(c.Endpoints),
		CA:        talosconfig.Encode(c.CA), Crt: talosconfig.Encode(c.Crt), Key: talosconfig.Encode(c.Key),
	}}}
}

// write looks at all places before it writes the first file.
func (g *generator) write(files map[string][]byte) error {
	paths := map[string]string{}
	for _, t := range g.types {
		paths[t] = g.path(t)
		if paths[t] == "-" {
			continue
		}
		if err := refuseExisting(paths[t], g.force); err != nil {
			return err
		}
	}
	for _, t := range g.types {
		if err := writeOut(g.a, paths[t], files[t], g.force); err != nil {
			return err
		}
	}
	return nil
}

func (g *generator) path(kind string) string {
	name := kind
	if kind != "talosconfig" {
		name += ".yaml"
	}
	single := len(g.types) == 1 && g.output != "" && !strings.HasSuffix(g.output, "/")
	if info, err := os.Stat(g.output); single && (err != nil || !info.IsDir()) {
		return g.output
	}
	return filepath.Join(g.output, name)
}
