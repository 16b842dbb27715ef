// Package kubelet runs the kubelet: a container of the node's own, given its
// configuration, its credentials and the node's folders.
//
// It owns the kubelet's files below layout.KubernetesDir and, of those below
// layout.KubeletDir, the client certificate until the kubelet rotates it.
// Static pods are package controlplane's. Rendering is pure; the service is run
// by package service, the controllers by the store's runtime.
package kubelet

import (
	"context"
	"log/slog"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"

	"talos/internal/configstore/active"
	"talos/internal/kube/node"
	"talos/internal/layout"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/secrets"
	"talos/internal/resources/v1alpha1"
)

// ID is the id of the service and of its resources.
const ID = resource.ID("kubelet")

// Files of the kubelet. The kubeconfig names the certificate files in pkiDir.
const (
	ConfigFile     = layout.KubernetesDir + "/kubelet.yaml"
	KubeconfigFile = layout.KubernetesDir + "/kubeconfig-kubelet"
	bootstrapFile  = layout.KubernetesDir + "/bootstrap-kubeconfig"
	providerFile   = layout.KubernetesDir + "/credential-provider.yaml"
	pkiDir         = layout.KubeletDir + "/pki"
	ClientFile     = pkiDir + "/kubelet-client-current.pem" // a link to the client certificate
	caFile         = layout.KubernetesDir + "/pki/ca.crt"
	providerDir    = "/opt/kubelet/credentialproviders"
)

// Options are what the controllers need of their surroundings.
type Options struct {
	Log *slog.Logger
	// Surroundings are what a node's kernel and platform allow.
	Surroundings Surroundings
	// ProjectQuota tells whether the file system of /var has project quotas.
	ProjectQuota func() bool
	// Restart starts the service again after its settings changed.
	Restart func(ctx context.Context, id string) error
}

// Surroundings are what the kubelet's settings depend on besides the
// configuration.
type Surroundings struct {
	// Container: the node is an OS container; its disk and its kernel settings
	// are the host's.
	Container bool
	// LowerOOMScore: the kernel lets us protect processes from being killed for
	// memory.
	LowerOOMScore bool
}

// Controllers are the controllers of this package.
func Controllers(o Options) []controller.Controller {
	return []controller.Controller{configController(o), specController(o), statusController(o), tokenController(o)}
}

// tokenController takes the bootstrap token away once the Node has been seen:
// the kubelet has its certificate then.
func tokenController(o Options) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.KubeletTokenController",
		Log: o.Log,
		In:  []controller.Input{reconcile.Input[*k8s.NodeStatus]()},
		Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			list, err := safe.ReaderListAll[*k8s.NodeStatus](ctx, r)
			if err != nil || list.Len() == 0 {
				return err
			}
			return forgetToken("")
		},
	}
}

func configController(o Options) controller.Controller {
	told := false
	return &reconcile.Controller{
		ID:  "k8s.KubeletConfigController",
		Log: o.Log,
		In:  []controller.Input{active.Input()},
		Out: []resource.Kind{reconcile.Kind[*k8s.KubeletConfig]()},
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil {
				return err
			}
			spec := settings(cfg)
			if spec.EnableFSQuotaMonitoring && (o.ProjectQuota == nil || !o.ProjectQuota()) {
				spec.EnableFSQuotaMonitoring = false
				if !told {
					log.Info("volumes are measured by walking through them: the file system of /var has no project quotas", "asked by", "machine.features.diskQuotaSupport")
				}
				told = true
			}
			return safe.WriterModify(ctx, r, k8s.NewKubeletConfig(ID), func(c *k8s.KubeletConfig) error {
				*c.TypedSpec() = spec
				return nil
			})
		},
	}
}

func specController(o Options) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.KubeletSpecController",
		Log: o.Log,
		In: []controller.Input{
			active.Input(),
			reconcile.InputID[*k8s.KubeletConfig](ID),
			reconcile.InputID[*k8s.Nodename](node.NameID),
			reconcile.InputID[*k8s.NodeIP](node.IPID),
		},
		Out: []resource.Kind{reconcile.Kind[*k8s.KubeletSpec]()},
		Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil {
				return err
			}
			c, err := reconcile.Get[*k8s.KubeletConfig](ctx, r, ID)
			if err != nil || c == nil {
				return err
			}
			name, err := reconcile.Get[*k8s.Nodename](ctx, r, node.NameID)
			if err != nil || name == nil {
				return err
			}
			ip, err := reconcile.Get[*k8s.NodeIP](ctx, r, node.IPID)
			if err != nil || ip == nil {
				return err
			}
			where := o.Surroundings
			spec := Spec(*c.TypedSpec(), name.TypedSpec().Nodename, ip.TypedSpec().Addresses, cfg.IsControlPlane(), where)
			return safe.WriterModify(ctx, r, k8s.NewKubeletSpec(ID), func(s *k8s.KubeletSpec) error {
				*s.TypedSpec() = spec
				return nil
			})
		},
	}
}

// statusController restarts the kubelet when what it was started with changed.
// KubeletStatus exists once it runs.
func statusController(o Options) controller.Controller {
	var started string // fingerprint of what the running kubelet was given
	return &reconcile.Controller{
		ID:  "k8s.KubeletServiceController",
		Log: o.Log,
		In: []controller.Input{
			reconcile.InputID[*k8s.KubeletSpec](ID),
			reconcile.InputID[*secrets.KubeletSecrets](ID),
			reconcile.InputID[*v1alpha1.Service](ID),
		},
		Out: []resource.Kind{reconcile.Kind[*k8s.KubeletStatus]()},
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			spec, err := reconcile.Get[*k8s.KubeletSpec](ctx, r, ID)
			if err != nil || spec == nil {
				return err
			}
			sec, err := reconcile.Get[*secrets.KubeletSecrets](ctx, r, ID)
			if err != nil || sec == nil {
				return err
			}
			svc, err := reconcile.Get[*v1alpha1.Service](ctx, r, ID)
			if err != nil || svc == nil || !svc.TypedSpec().Running {
				return err
			}
			now := fingerprint(*spec.TypedSpec(), *sec.TypedSpec())
			if started != "" && started != now && o.Restart != nil {
				log.Info("kubelet's settings changed, starting it again")
				if err := o.Restart(ctx, ID); err != nil {
					return err
				}
			}
			started = now
			return safe.WriterModify(ctx, r, k8s.NewKubeletStatus(ID), func(s *k8s.KubeletStatus) error {
				s.TypedSpec().Image = spec.TypedSpec().Image
				return nil
			})
		},
	}
}
