package controlplane

import (
	"context"
	"fmt"

	"github.com/cosi-project/runtime/pkg/controller"

	"talos/internal/layout"
	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
	"talos/internal/resources/secrets"
)

// inputs are everything that the control plane is rendered from.
type inputs struct {
	apiServer  k8s.APIServerConfigSpec
	manager    k8s.ControllerManagerConfigSpec
	scheduler  k8s.SchedulerConfigSpec
	admission  k8s.AdmissionControlConfigSpec
	audit      k8s.AuditPolicyConfigSpec
	authn      k8s.AuthenticationConfigSpec
	authz      k8s.AuthorizationConfigSpec
	material   Material
	encryption []byte // set by render
}

// readInputs is nil while something does not exist yet.
func readInputs(ctx context.Context, r controller.Reader, o Options) (*inputs, error) {
	var in inputs
	missing := false
	var err error
	note := func(ok bool, e error) {
		missing = missing || !ok
		if err == nil {
			err = e
		}
	}
	note(read[k8s.APIServerConfigSpec, *k8s.APIServerConfig](ctx, r, APIServer, &in.apiServer))
	note(read[k8s.ControllerManagerConfigSpec, *k8s.ControllerManagerConfig](ctx, r, Manager, &in.manager))
	note(read[k8s.SchedulerConfigSpec, *k8s.SchedulerConfig](ctx, r, Scheduler, &in.scheduler))
	note(read[k8s.AdmissionControlConfigSpec, *k8s.AdmissionControlConfig](ctx, r, admissionID, &in.admission))
	note(read[k8s.AuditPolicyConfigSpec, *k8s.AuditPolicyConfig](ctx, r, auditID, &in.audit))
	note(read[k8s.AuthenticationConfigSpec, *k8s.AuthenticationConfig](ctx, r, authnID, &in.authn))
	note(read[k8s.AuthorizationConfigSpec, *k8s.AuthorizationConfig](ctx, r, authzID, &in.authz))
	note(read[secrets.KubernetesRootSecretsSpec, *secrets.KubernetesRootSecrets](ctx, r, rootID, &in.material.Root))
	note(read[secrets.KubernetesDynamicCertsSpec, *secrets.KubernetesDynamicCerts](ctx, r, dynamicID, &in.material.Dynamic))
	note(read[secrets.KubernetesSecretsSpec, *secrets.KubernetesSecrets](ctx, r, kubeID, &in.material.Kube))
	note(read[secrets.EtcdSecretsSpec, *secrets.EtcdSecrets](ctx, r, etcdID, &in.material.Etcd))
	note(read[secrets.EtcdRootSecretsSpec, *secrets.EtcdRootSecrets](ctx, r, etcdID, &in.material.EtcdCA))
	if err != nil || missing {
		return nil, err
	}
	if o.LocalServer != nil {
		in.material.LocalServer, err = o.LocalServer(ctx, r)
	}
	return &in, err
}

func read[S any, R interface {
	comparable
	reconcile.Resource[S]
}](ctx context.Context, r controller.Reader, id string, into *S) (bool, error) {
	res, err := reconcile.Get[R](ctx, r, id)
	var none R
	if err != nil || res == none {
		return false, err
	}
	*into = *res.TypedSpec()
	return true, nil
}

// rendered is a component that is ready to be written.
type rendered struct {
	name  string
	uid   int
	files files
	pod   m
}

func (in *inputs) render() ([]rendered, error) {
	api, err := apiServerFiles(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", APIServer, err)
	}
	in.encryption = api["encryption.yaml"]
	out := []rendered{{APIServer, layout.APIServerUID, api, apiServerPod(in.apiServer, api.hash(apiServerReread...))}}
	if in.manager.Enabled {
		f, err := managerFiles(in.material)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", Manager, err)
		}
		out = append(out, rendered{Manager, layout.ManagerUID, f, managerPod(in.manager, f.hash("ca.crt"))})
	}
	if in.scheduler.Enabled {
		f, err := schedulerFiles(in.material, in.scheduler)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", Scheduler, err)
		}
		out = append(out, rendered{Scheduler, layout.SchedulerUID, f, schedulerPod(in.scheduler, f.hash())})
	}
	return out, nil
}
