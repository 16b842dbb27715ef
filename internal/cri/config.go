// Package cri configures the node's two containerds: the OS's own, which knows
// nothing of Kubernetes and lives on tmpfs, and the one that runs pods; and how
// both reach registries.
//
// It owns their configuration files and the tree of registry settings below
// containers.HostsDir. Starting them is package service's. Rendering is pure;
// the controllers are safe for concurrent use as the runtime runs them.
package cri

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"talos/internal/containers"
	"talos/internal/layout"
)

// Files and folders of the OS's own containerd.
const (
	SystemConfigFile = "/system/etc/containerd/config.toml"
	systemRoot       = "/system/containerd"
	systemState      = "/system/run/containerd"
)

// Files and folders of Kubernetes's containerd.
const (
	ConfigFile = "/system/etc/cri/config.toml"
	// Root is where it keeps images, on EPHEMERAL.
	Root     = "/var/lib/containerd"
	stateDir = "/run/containerd"
)

// snapshotters are all that containerd has built in; an instance gets one.
var snapshotters = []string{"blockfile", "btrfs", "devmapper", "erofs", "native", "overlayfs", "zfs"}

// unneeded are plugins that neither instance has a use for.
var unneeded = []string{
	"io.containerd.differ.v1.erofs",
	"io.containerd.image-verifier.v1.bindir",
	"io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.tracing",
	"io.containerd.monitor.container.v1.restart",
	"io.containerd.mount-handler.v1.erofs",
	"io.containerd.nri.v1.nri",
	"io.containerd.service.v1.opt",
	"io.containerd.tracing.processor.v1.otlp",
}

// SystemConfig is the configuration of the OS's own containerd.
func SystemConfig() string {
	disabled := append([]string{
		"io.containerd.cri.v1.images",
		"io.containerd.cri.v1.runtime",
		"io.containerd.grpc.v1.cri",
		"io.containerd.metrics.v1.grpc-prometheus",
		"io.containerd.monitor.task.v1.cgroups",
	}, unneeded...)
	var b strings.Builder
	writeHead(&b, systemRoot, systemState, layout.ContainerdSocket, without(disabled, "overlayfs"))
	return b.String()
}

// Options are what the configuration of Kubernetes's containerd depends on.
type Options struct {
	SandboxImage string
	// Snapshotter is "overlayfs" or "native".
	Snapshotter string
	// RestrictOOM says that scores below machined's own can't be set on this
	// node: containers get its own instead of an error.
	RestrictOOM bool
	// Auths are the credentials of registries, by host. Mirrors and
	// certificates are not here: they are read anew for each pull.
	Auths map[string]Auth
}

// Auth is one registry's credentials.
type Auth struct {
	Username, Password, Auth, IdentityToken string
}

// maxDownloads is how many layers are fetched at a time.
const maxDownloads = 6

// Config is the configuration of Kubernetes's containerd.
func Config(o Options) string {
	var b strings.Builder
	writeHead(&b, Root, stateDir, layout.CRISocket, without(unneeded, o.Snapshotter))
	fmt.Fprintf(&b, `
[plugins.'io.containerd.cri.v1.images']
  snapshotter = %s
  discard_unpacked_layers = true
  max_concurrent_downloads = %d
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %s
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = %s
`, quote(o.Snapshotter), maxDownloads, quote(o.SandboxImage), quote(containers.HostsDir))
	for _, host := range slices.Sorted(maps.Keys(o.Auths)) {
		a := o.Auths[host]
		fmt.Fprintf(&b, "[plugins.'io.containerd.cri.v1.images'.registry.configs.%s.auth]\n", quote(host))
		for _, kv := range [][2]string{{"username", a.Username}, {"password", a.Password}, {"auth", a.Auth}, {"identitytoken", a.IdentityToken}} {
			if kv[1] != "" {
				fmt.Fprintf(&b, "  %s = %s\n", kv[0], quote(kv[1]))
			}
		}
	}
	fmt.Fprintf(&b, `
[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_downloads = %d
  config_path = %s
%s
[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = false
  disable_apparmor = true
  restrict_oom_score_adj = %t
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  enable_criu = false
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [%s, %s]
  conf_dir = %s
`, maxDownloads, quote(containers.HostsDir), unpackWith(o.Snapshotter), o.RestrictOOM, quote(layout.CNIBinDir), quote(layout.CNISystemBinDir), quote(layout.CNIConfDir))
	return b.String()
}

// unpackWith names the snapshotter to the transfer service, which would not
// start without its default, overlayfs.
func unpackWith(snapshotter string) string {
	if snapshotter == "overlayfs" {
		return ""
	}
	return fmt.Sprintf(`  [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
    platform = %s
    snapshotter = %s
`, quote("linux/"+runtime.GOARCH), quote(snapshotter))
}

// writeHead writes what both configurations share.
func writeHead(b *strings.Builder, root, state, socket string, disabled []string) {
	fmt.Fprintf(b, "version = 4\nroot = %s\nstate = %s\nimports = []\ndisabled_plugins = [\n", quote(root), quote(state))
	for _, p := range disabled {
		fmt.Fprintf(b, "  %s,\n", quote(p))
	}
	fmt.Fprintf(b, `]

[debug]
  level = 'info'
  format = 'text'

[plugins.'io.containerd.server.v1.grpc']
  address = %s
[plugins.'io.containerd.server.v1.ttrpc']
  address = %s
`, quote(socket), quote(socket+".ttrpc"))
}

// without adds every snapshotter but one to the disabled plugins.
func without(disabled []string, snapshotter string) []string {
	all := append([]string{}, disabled...)
	for _, s := range snapshotters {
		if s != snapshotter {
			all = append(all, "io.containerd.snapshotter.v1."+s)
		}
	}
	return all
}

// quote writes a TOML basic string: for the characters that may occur, Go's
// escapes are TOML's.
func quote(s string) string { return strconv.Quote(s) }
