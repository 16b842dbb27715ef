// Package controlplane runs kube-apiserver, kube-controller-manager and
// kube-scheduler on control plane nodes: it turns the configuration into their
// settings, these and the secrets into folders of files and static pods, and
// writes the pods, with those of machine.pods, where the kubelet reads them.
//
// It owns layout.ManifestsDir, the components' folders in layout.SecretsDir and
// AuditDir. It makes no certificate (internal/secrets does) and does not run
// etcd. Rendering is pure; the controllers are run by the store's runtime.
package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/layout"
	"talos/internal/reconcile"
	"talos/internal/resources/etcd"
	"talos/internal/resources/k8s"
	"talos/internal/resources/object"
	"talos/internal/resources/secrets"
)

// Ids of the resources that others make or read.
const (
	NodeIPID    = resource.ID("kubelet")
	rootID      = resource.ID("k8s")
	dynamicID   = resource.ID("k8s-certs")
	kubeID      = resource.ID("k8s-secrets")
	etcdID      = resource.ID("etcd")
	admissionID = resource.ID("admission-control")
	auditID     = resource.ID("audit-policy")
	authnID     = resource.ID("authentication")
	authzID     = resource.ID("authorization")
	statusID    = resource.ID("static-pods")
)

// Options are what the controllers need of their surroundings.
type Options struct {
	Log *slog.Logger
	// Root is put before every path that is written; "" on a node.
	Root string
	// LocalServer is the address by which components of this node reach the
	// API; "": the one that their kubeconfig names.
	LocalServer func(ctx context.Context, r controller.Reader) (string, error)
}

// Controllers are the controllers of this package.
func Controllers(o Options) []controller.Controller {
	return []controller.Controller{settingsController(o), podController(o), fileController(o)}
}

func settingsController(o Options) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.ControlPlaneConfigController",
		Log: o.Log,
		In: []controller.Input{
			active.Input(),
			reconcile.InputID[*k8s.NodeIP](NodeIPID),
		},
		Out: []resource.Kind{
			reconcile.Kind[*k8s.APIServerConfig](), reconcile.Kind[*k8s.ControllerManagerConfig](), reconcile.Kind[*k8s.SchedulerConfig](),
			reconcile.Kind[*k8s.AdmissionControlConfig](), reconcile.Kind[*k8s.AuditPolicyConfig](), reconcile.Kind[*k8s.AuthenticationConfig](),
			reconcile.Kind[*k8s.AuthorizationConfig](),
		},
		Step: settingsStep,
	}
}

func settingsStep(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil || !cfg.IsControlPlane() {
		return err
	}
	ip, err := reconcile.Get[*k8s.NodeIP](ctx, r, NodeIPID)
	if err != nil {
		return err
	}
	if ip == nil || len(ip.TypedSpec().Addresses) == 0 {
		return nil // the API server advertises the node's address
	}
	if err := reconcile.Put(ctx, r, k8s.NewAPIServerConfig(APIServer), apiServerSettings(cfg, first(ip))); err != nil {
		return err
	}
	if err := reconcile.Put(ctx, r, k8s.NewControllerManagerConfig(Manager), managerSettings(cfg)); err != nil {
		return err
	}
	if err := reconcile.Put(ctx, r, k8s.NewSchedulerConfig(Scheduler), schedulerSettings(cfg)); err != nil {
		return err
	}
	if err := reconcile.Put(ctx, r, k8s.NewAdmissionControlConfig(admissionID), admissionSettings(cfg)); err != nil {
		return err
	}
	if err := reconcile.Put(ctx, r, k8s.NewAuditPolicyConfig(auditID), auditSettings(cfg)); err != nil {
		return err
	}
	if err := reconcile.Put(ctx, r, k8s.NewAuthenticationConfig(authnID), authenticationSettings(cfg)); err != nil {
		return err
	}
	return reconcile.Put(ctx, r, k8s.NewAuthorizationConfig(authzID), authorizationSettings(cfg))
}

func first(ip *k8s.NodeIP) netip.Addr { return ip.TypedSpec().Addresses[0] }

func podController(o Options) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.ControlPlaneStaticPodController",
		Log: o.Log,
		In: []controller.Input{
			reconcile.Input[*k8s.APIServerConfig](), reconcile.Input[*k8s.ControllerManagerConfig](), reconcile.Input[*k8s.SchedulerConfig](),
			reconcile.Input[*k8s.AdmissionControlConfig](), reconcile.Input[*k8s.AuditPolicyConfig](), reconcile.Input[*k8s.AuthenticationConfig](),
			reconcile.Input[*k8s.AuthorizationConfig](),
			reconcile.Input[*secrets.KubernetesRootSecrets](), reconcile.Input[*secrets.KubernetesDynamicCerts](), reconcile.Input[*secrets.KubernetesSecrets](),
			reconcile.Input[*secrets.EtcdSecrets](), reconcile.Input[*secrets.EtcdRootSecrets](),
			active.Input(),
		},
		Out: []resource.Kind{
			reconcile.Kind[*k8s.StaticPod](), reconcile.Kind[*k8s.SecretStatus](), reconcile.Kind[*k8s.ConfigStatus](), reconcile.Kind[*k8s.EtcdEncryptionConfig](),
		},
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			if err := userPods(ctx, r); err != nil {
				return err
			}
			return renderStep(ctx, r, log, o)
		},
	}
}

func userPods(ctx context.Context, r controller.Runtime) error {
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return err
	}
	for i, p := range config.Of(cfg.Machine).Pods {
		pod := userPod(i, p)
		meta := pod["metadata"].(m)
		id := fmt.Sprintf("%v-%v", meta["namespace"], meta["name"])
		if err := reconcile.Put(ctx, r, k8s.NewStaticPod(id), k8s.StaticPodSpec{Pod: object.Map{Values: pod}}); err != nil {
			return err
		}
	}
	return nil
}

// renderStep writes the folders, then the pods that mount them.
func renderStep(ctx context.Context, r controller.Runtime, log *slog.Logger, o Options) error {
	in, err := readInputs(ctx, r, o)
	if err != nil || in == nil {
		return err
	}
	all, err := in.render()
	if err != nil {
		log.Debug("control plane not rendered yet", "reason", err)
		return nil // an incomplete input is followed by an event
	}
	if err := privateFolder(o.Root+AuditDir, layout.APIServerUID); err != nil {
		return err
	}
	version := ""
	for _, c := range all {
		if err := writeFolder(o.Root+dir(c.name), c.uid, c.files); err != nil {
			return err
		}
		version += c.files.hash()
		if err := reconcile.Put(ctx, r, k8s.NewStaticPod(c.name), k8s.StaticPodSpec{Pod: object.Map{Values: c.pod}}); err != nil {
			return err
		}
	}
	version = files{"all": []byte(version)}.hash()
	if err := reconcile.Put(ctx, r, k8s.NewEtcdEncryptionConfig("etcd-encryption"), k8s.EtcdEncryptionConfigSpec{Configuration: string(in.encryption)}); err != nil {
		return err
	}
	if err := reconcile.Put(ctx, r, k8s.NewSecretStatus(statusID), k8s.SecretStatusSpec{Ready: true, Version: version}); err != nil {
		return err
	}
	return reconcile.Put(ctx, r, k8s.NewConfigStatus(statusID), k8s.ConfigStatusSpec{Ready: true, Version: version})
}

func fileController(o Options) controller.Controller {
	return &reconcile.Controller{
		ID:  "k8s.StaticPodFileController",
		Log: o.Log,
		In: []controller.Input{
			reconcile.Input[*k8s.StaticPod](),
			reconcile.Input[*etcd.EtcdMember](),
			active.Input(),
		},
		Out: []resource.Kind{reconcile.Kind[*k8s.StaticPodServerStatus]()},
		Step: func(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
			return fileStep(ctx, r, o)
		},
	}
}

// fileStep writes the manifests. The control plane's appear once the node's etcd
// is a voting member, as one that only copies serves nobody, and go when it has
// left its cluster. While it is down they stay: the API server then says itself
// that it is not ready, and the balancers leave it out.
func fileStep(ctx context.Context, r controller.Runtime, o Options) error {
	folder := o.Root + layout.ManifestsDir
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return err
	}
	members, err := safe.ReaderListAll[*etcd.EtcdMember](ctx, r)
	if err != nil {
		return fmt.Errorf("list etcd's members of this node: %w", err)
	}
	pods, err := safe.ReaderListAll[*k8s.StaticPod](ctx, r)
	if err != nil {
		return fmt.Errorf("list static pods: %w", err)
	}
	want := map[string]m{}
	for p := range pods.All() {
		id := p.Metadata().ID()
		if needsEtcd(id) && members.Len() == 0 {
			continue
		}
		want[id] = p.TypedSpec().Pod.Values
	}
	if config.Of(config.Of(config.Of(cfg.Machine).Kubelet).DisableManifestsDirectory) && !cfg.IsControlPlane() && len(want) == 0 {
		return nil
	}
	if err := writeManifests(folder, want); err != nil {
		return err
	}
	return reconcile.Put(ctx, r, k8s.NewStaticPodServerStatus(statusID), k8s.StaticPodServerStatusSpec{URL: "file://" + layout.ManifestsDir})
}

func needsEtcd(id string) bool { return id == APIServer || id == Manager || id == Scheduler }
