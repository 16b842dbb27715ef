package kube

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/kube/controlplane"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/v1alpha1"
)

// pullController fetches the images of the control plane and of the bootstrap
// manifests as soon as containerd runs: etcd, the API server and the network
// come one after the other, their images need not. A worker does so while it
// waits for the API.
func pullController(o Options) controller.Controller {
	var task reconcile.Task
	return &reconcile.Controller{
		ID:  "k8s.ImagePullController",
		Log: o.Log,
		In: []controller.Input{
			active.Input(),
			reconcile.Input[*k8s.APIServerConfig](), reconcile.Input[*k8s.ControllerManagerConfig](), reconcile.Input[*k8s.SchedulerConfig](),
			reconcile.Input[*k8s.BootstrapManifestsConfig](), reconcile.InputID[*v1alpha1.Service]("cri"),
		},
		Close: task.Stop,
		Step: func(ctx context.Context, r controller.Runtime, log *slog.Logger) error {
			svc, err := reconcile.Get[*v1alpha1.Service](ctx, r, "cri")
			if err != nil || svc == nil || !svc.TypedSpec().Running || !svc.TypedSpec().Healthy {
				return err
			}
			cfg, err := active.Config(ctx, r)
			if err != nil || cfg == nil {
				return err
			}
			images := workerImages(cfg)
			if cfg.IsControlPlane() {
				images, err = controlPlaneImages(ctx, r)
			}
			if err != nil || len(images) == 0 {
				return err
			}
			task.Ensure(ctx, log, strings.Join(images, " "), func(ctx context.Context) error {
				for _, image := range images {
					start := time.Now()
					if err := o.Pull(ctx, image); err != nil {
						// The kubelet will try again, and say so where people look.
						log.Debug("image not fetched ahead", "image", image, "err", err)
						continue
					}
					log.Debug("image fetched ahead", "image", image, "took", time.Since(start))
				}
				return nil
			})
			return nil
		},
	}
}

// workerImages are those that the cluster is going to run on every node, as far
// as a worker's configuration tells.
func workerImages(cfg *config.Config) (out []string) {
	if cfg.CNIName() == "flannel" {
		out = append(out, config.FlannelImage())
	}
	if !config.Of(config.Of(config.Of(cfg.Cluster).Proxy).Disabled) {
		out = append(out, cfg.ProxyImage())
	}
	return out
}

// controlPlaneImages are in the order in which they are needed.
func controlPlaneImages(ctx context.Context, r controller.Reader) ([]string, error) {
	api, err := reconcile.Get[*k8s.APIServerConfig](ctx, r, controlplane.APIServer)
	if err != nil || api == nil {
		return nil, err
	}
	manager, err := reconcile.Get[*k8s.ControllerManagerConfig](ctx, r, controlplane.Manager)
	if err != nil || manager == nil {
		return nil, err
	}
	scheduler, err := reconcile.Get[*k8s.SchedulerConfig](ctx, r, controlplane.Scheduler)
	if err != nil || scheduler == nil {
		return nil, err
	}
	out := []string{api.TypedSpec().Image}
	if manager.TypedSpec().Enabled {
		out = append(out, manager.TypedSpec().Image)
	}
	if scheduler.TypedSpec().Enabled {
		out = append(out, scheduler.TypedSpec().Image)
	}
	boot, err := reconcile.Get[*k8s.BootstrapManifestsConfig](ctx, r, "manifests")
	if err != nil || boot == nil {
		return nil, err
	}
	b := boot.TypedSpec()
	for _, image := range []struct {
		on  bool
		ref string
	}{{b.FlannelEnabled, b.FlannelImage}, {b.ProxyEnabled, b.ProxyImage}, {b.CoreDNSEnabled, b.CoreDNSImage}} {
		if image.on {
			out = append(out, image.ref)
		}
	}
	return out, nil
}
