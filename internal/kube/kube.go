// Package kube is Kubernetes on this node: the control plane's static pods, the
// kubelet, the objects that make a cluster of them, access from pods to the
// machines' API, and this machine's Node.
//
// It wires the packages below it, each of which owns one of these; it owns
// nothing itself. Certificates are made by internal/secrets, etcd is
// internal/etcd's.
package kube

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"talos/internal/configstore/active"
	"talos/internal/kube/access"
	"talos/internal/kube/api"
	"talos/internal/kube/controlplane"
	"talos/internal/kube/csr"
	"talos/internal/kube/drain"
	"talos/internal/kube/kubelet"
	"talos/internal/kube/lease"
	"talos/internal/kube/localapi"
	"talos/internal/kube/manifest"
	"talos/internal/kube/node"
	"talos/internal/layout"
	"talos/internal/linux/caps"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/secrets"
	"talos/internal/service"
)

var (
	errNoConfig  = errors.New("there is no machine configuration")
	errNotJoined = errors.New("this node has not joined Kubernetes yet")
)

// Services restarts services; *service.Supervisor does.
type Services interface {
	Restart(ctx context.Context, id string) error
}

// Options are what the controllers need of their surroundings.
type Options struct {
	Log      *slog.Logger
	Services Services
	// Root is put before the paths of static pods and their secrets; "" on a
	// node.
	Root string
	// Pull, if set, fetches an image into the containerd of Kubernetes, so that
	// pods find theirs when they start.
	Pull func(ctx context.Context, image string) error
	// Boot tells this run of the node from others.
	Boot string
}

// Controllers are all controllers of Kubernetes on this node.
func Controllers(o Options) []controller.Controller {
	all := []controller.Controller{localapi.Controller(o.Log), csr.Controller(o.Log), lease.Controller(o.Log, time.Now())}
	all = append(all, controlplane.Controllers(controlplane.Options{Log: o.Log, Root: o.Root, LocalServer: localServer})...)
	all = append(all, node.Controllers(node.Options{Log: o.Log, Kubeconfig: kubeconfig, Boot: o.Boot})...)
	all = append(all, kubelet.Controllers(kubelet.Options{Log: o.Log, Surroundings: surroundings(), ProjectQuota: projectQuota, Restart: o.Services.Restart})...)
	all = append(all, manifest.Controllers(o.Log, localapi.Shared)...)
	all = append(all, access.Controllers(o.Log)...)
	if o.Pull != nil {
		all = append(all, pullController(o))
	}
	return all
}

// KubeletService is the kubelet as a service.
func KubeletService(st state.State) service.Definition {
	return kubelet.Service(st, surroundings(), func(ctx context.Context, st state.State) (string, error) {
		cfg, err := active.Config(ctx, st)
		if err != nil || cfg == nil {
			return "", errors.Join(err, errNoConfig)
		}
		return localapi.Address(cfg), nil
	})
}

// Drainer takes this node out of Kubernetes's service and back.
func Drainer(st state.State, boot string) *drain.Node {
	return &drain.Node{Boot: boot, Connect: func(ctx context.Context) (*api.Client, string, error) {
		name, err := reconcile.Get[*k8s.Nodename](ctx, st, node.NameID)
		if err != nil {
			return nil, "", err
		}
		access, err := kubeconfig(ctx, st)
		if err != nil {
			return nil, "", err
		}
		if name == nil || len(access) == 0 {
			return nil, "", errNotJoined
		}
		client, err := api.New(access)
		return client, name.TypedSpec().Nodename, err
	}}
}

// surroundings looks at where we run.
func surroundings() kubelet.Surroundings {
	// Not knowing is as not having: scores are then left as they are.
	lower, _ := caps.Has(unix.CAP_SYS_RESOURCE)
	return kubelet.Surroundings{Container: os.Getenv("PLATFORM") == "container", LowerOOMScore: lower}
}

// projectQuota tells whether EPHEMERAL's file system counts by project.
func projectQuota() bool {
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(layout.EphemeralDir))
	if err != nil || len(list) == 0 {
		return false // as without: the kubelet walks
	}
	return slices.ContainsFunc(strings.Split(list[0].VFSOptions, ","), func(o string) bool { return o == "prjquota" || o == "pquota" })
}

func localServer(ctx context.Context, r controller.Reader) (string, error) {
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return "", err
	}
	return localapi.ComponentAddress(cfg), nil
}

// kubeconfig is the administrator's on a control plane node, the kubelet's own
// on a worker once it has one.
func kubeconfig(ctx context.Context, r controller.Reader) ([]byte, error) {
	sec, err := reconcile.Get[*secrets.KubernetesSecrets](ctx, r, "k8s-secrets")
	if err != nil {
		return nil, err
	}
	if sec != nil && sec.TypedSpec().LocalhostAdminKubeconfig != "" {
		return []byte(sec.TypedSpec().LocalhostAdminKubeconfig), nil
	}
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil || cfg.IsControlPlane() {
		return nil, err
	}
	if _, err := os.Stat(kubelet.ClientFile); err != nil { // the kubelet writes the one before it has the other
		return nil, nil
	}
	data, err := os.ReadFile(kubelet.KubeconfigFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
