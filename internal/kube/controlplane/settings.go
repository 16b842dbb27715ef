package controlplane

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"talos/config"
	"talos/internal/kube/reconcile"
	"talos/internal/layout"
	"talos/internal/resources/k8s"
	"talos/internal/resources/object"
)

// Defaults of the cluster's networks.
const (
	DefaultPodSubnet     = "10.244.0.0/16"
	DefaultServiceSubnet = "10.96.0.0/12"
	DefaultDNSDomain     = "cluster.local"
)

// Default images; upgrading Kubernetes sets the configuration's.
const (
	defaultAPIServerImage = "registry.k8s.io/kube-apiserver:v1.37.1"
	defaultManagerImage   = "registry.k8s.io/kube-controller-manager:v1.37.1"
	defaultSchedulerImage = "registry.k8s.io/kube-scheduler:v1.37.1"
)

// Port is where this node's API server listens.
func Port(cfg *config.Config) int {
	if p := reconcile.Of(reconcile.Of(cfg.Cluster).ControlPlane).LocalAPIServerPort; p != 0 {
		return p
	}
	return layout.KubePort
}

// PodSubnets are the networks that pods get addresses of.
func PodSubnets(cfg *config.Config) []string {
	if s := reconcile.Of(reconcile.Of(cfg.Cluster).Network).PodSubnets; len(s) > 0 {
		return s
	}
	return []string{DefaultPodSubnet}
}

// ServiceSubnets are the networks of cluster IPs.
func ServiceSubnets(cfg *config.Config) []string {
	if s := reconcile.Of(reconcile.Of(cfg.Cluster).Network).ServiceSubnets; len(s) > 0 {
		return s
	}
	return []string{DefaultServiceSubnet}
}

// DNSDomain is the domain of the cluster's names.
func DNSDomain(cfg *config.Config) string {
	if d := reconcile.Of(reconcile.Of(cfg.Cluster).Network).DNSDomain; d != "" {
		return d
	}
	return DefaultDNSDomain
}

// DNSAddresses are the tenth address of each service network: where the
// cluster's name server answers.
func DNSAddresses(cfg *config.Config) ([]string, error) {
	var out []string
	for _, s := range ServiceSubnets(cfg) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("service subnet: %w", err)
		}
		a := p.Masked().Addr()
		for range 10 {
			a = a.Next()
		}
		out = append(out, a.String())
	}
	return out, nil
}

// Endpoint is the cluster's endpoint.
func Endpoint(cfg *config.Config) string {
	return reconcile.Of(reconcile.Of(cfg.Cluster).ControlPlane).Endpoint
}

func cloudProvider(cfg *config.Config) string {
	if reconcile.Of(reconcile.Of(reconcile.Of(cfg.Cluster).ExternalCloudProvider).Enabled) {
		return "external"
	}
	return ""
}

// apiServerSettings is what the configuration says of kube-apiserver.
func apiServerSettings(cfg *config.Config, nodeIP netip.Addr) k8s.APIServerConfigSpec {
	c := reconcile.Of(reconcile.Of(cfg.Cluster).APIServer)
	extra := argValues(c.ExtraArgs)
	s := k8s.APIServerConfigSpec{
		Image:                or(c.Image, defaultAPIServerImage),
		CloudProvider:        cloudProvider(cfg),
		ControlPlaneEndpoint: Endpoint(cfg),
		EtcdServers:          []string{"https://" + net.JoinHostPort("127.0.0.1", "2379")},
		LocalPort:            Port(cfg),
		ServiceCIDR:          ServiceSubnets(cfg),
		ExtraArgs:            extra,
		ExtraVolumes:         volumes(c.ExtraVolumes),
		EnvironmentVariables: c.Env,
		Resources:            resourceList(c.Resources),
		StartupProbesEnabled: true,
		// Flags for OpenID and for anonymous access exclude the file.
		UseAuthenticationConfig: !has(extra, "oidc-*", "anonymous-auth", "authentication-config"),
	}
	if nodeIP.IsValid() {
		s.AdvertisedAddress = nodeIP.String()
	}
	s.Args = apiServerArgs(s, len(c.AuthorizationConfig) > 0)
	return s
}

// managerSettings is what the configuration says of kube-controller-manager.
func managerSettings(cfg *config.Config) k8s.ControllerManagerConfigSpec {
	c := reconcile.Of(reconcile.Of(cfg.Cluster).ControllerManager)
	off := reconcile.Of(reconcile.Of(reconcile.Of(reconcile.Of(cfg.Machine).ControlPlane).ControllerManager).Disabled)
	s := k8s.ControllerManagerConfigSpec{
		Enabled:              !off,
		Image:                or(c.Image, defaultManagerImage),
		CloudProvider:        cloudProvider(cfg),
		PodCIDRs:             PodSubnets(cfg),
		ServiceCIDRs:         ServiceSubnets(cfg),
		ExtraArgs:            argValues(c.ExtraArgs),
		ExtraVolumes:         volumes(c.ExtraVolumes),
		EnvironmentVariables: c.Env,
		Resources:            resourceList(c.Resources),
		NodeCIDRMaskSizeIPv4: 24,
		NodeCIDRMaskSizeIPv6: 64,
	}
	s.Args = managerArgs(s)
	return s
}

// schedulerSettings is what the configuration says of kube-scheduler.
func schedulerSettings(cfg *config.Config) k8s.SchedulerConfigSpec {
	c := reconcile.Of(reconcile.Of(cfg.Cluster).Scheduler)
	off := reconcile.Of(reconcile.Of(reconcile.Of(reconcile.Of(cfg.Machine).ControlPlane).Scheduler).Disabled)
	s := k8s.SchedulerConfigSpec{
		Enabled:              !off,
		Image:                or(c.Image, defaultSchedulerImage),
		ExtraArgs:            argValues(c.ExtraArgs),
		Config:               object.Map{Values: c.Config},
		ExtraVolumes:         volumes(c.ExtraVolumes),
		EnvironmentVariables: c.Env,
		Resources:            resourceList(c.Resources),
	}
	s.Args = schedulerArgs(s)
	return s
}

// admissionSettings are the plugins with a configuration: PodSecurity as the
// cluster's default, unless the user gives another, and the user's.
func admissionSettings(cfg *config.Config) k8s.AdmissionControlConfigSpec {
	c := reconcile.Of(reconcile.Of(cfg.Cluster).APIServer)
	var spec k8s.AdmissionControlConfigSpec
	seen := false
	for _, p := range c.AdmissionControl {
		seen = seen || p.Name == "PodSecurity"
		spec.Config = append(spec.Config, k8s.AdmissionPluginSpec{Name: p.Name, Configuration: object.Map{Values: p.Configuration}})
	}
	if !seen {
		spec.Config = append(spec.Config, k8s.AdmissionPluginSpec{Name: "PodSecurity", Configuration: object.Map{Values: podSecurity()}})
	}
	return spec
}

func podSecurity() map[string]any {
	return map[string]any{
		"apiVersion": "pod-security.admission.config.k8s.io/v1",
		"kind":       "PodSecurityConfiguration",
		"defaults": map[string]any{
			"enforce": "baseline", "enforce-version": "latest",
			"audit": "restricted", "audit-version": "latest",
			"warn": "restricted", "warn-version": "latest",
		},
		"exemptions": map[string]any{
			"usernames":      []any{},
			"runtimeClasses": []any{},
			"namespaces":     []any{"kube-system"},
		},
	}
}

// auditSettings is the user's audit policy, else: who did what to which object,
// once per request, without the content.
func auditSettings(cfg *config.Config) k8s.AuditPolicyConfigSpec {
	p := reconcile.Of(reconcile.Of(cfg.Cluster).APIServer).AuditPolicy
	if len(p) == 0 {
		p = map[string]any{
			"apiVersion": "audit.k8s.io/v1",
			"kind":       "Policy",
			"omitStages": []any{"RequestReceived"},
			"rules":      []any{map[string]any{"level": "Metadata"}},
		}
	}
	return k8s.AuditPolicyConfigSpec{Config: object.Map{Values: p}}
}

// authorizationSettings are the authorizers in the order in which they are
// asked; Node and RBAC are always among them.
func authorizationSettings(cfg *config.Config) k8s.AuthorizationConfigSpec {
	c := reconcile.Of(reconcile.Of(cfg.Cluster).APIServer)
	spec := k8s.AuthorizationConfigSpec{Image: or(c.Image, defaultAPIServerImage)}
	have := map[string]bool{}
	for _, a := range c.AuthorizationConfig {
		have[a.Type] = true
		spec.Config = append(spec.Config, k8s.AuthorizationAuthorizersSpec{Type: a.Type, Name: a.Name, Webhook: object.Map{Values: a.Webhook}})
	}
	var first []k8s.AuthorizationAuthorizersSpec
	for _, kind := range []string{"Node", "RBAC"} {
		if !have[kind] {
			first = append(first, k8s.AuthorizationAuthorizersSpec{Type: kind, Name: strings.ToLower(kind)})
		}
	}
	spec.Config = append(first, spec.Config...)
	return spec
}

func or(v, def string) string {
	if v == "" {
		return def
	}
	return v
}

func argValues(in map[string]string) map[string]k8s.ArgValues {
	out := make(map[string]k8s.ArgValues, len(in))
	for k, v := range in {
		out[k] = k8s.ArgValues{Values: []string{v}}
	}
	return out
}

func volumes(in []config.VolumeMount) []k8s.ExtraVolume {
	var out []k8s.ExtraVolume
	for i, v := range in {
		out = append(out, k8s.ExtraVolume{
			Name: "extra-" + strconv.Itoa(i), HostPath: v.HostPath, MountPath: v.MountPath, Readonly: reconcile.Of(v.Readonly),
		})
	}
	return out
}

// resourceList reads requests and limits, whose values may be numbers in YAML.
func resourceList(in map[string]any) k8s.Resources {
	read := func(key string) map[string]string {
		values, _ := in[key].(map[string]any)
		if len(values) == 0 {
			return nil
		}
		out := map[string]string{}
		for k, v := range values {
			out[k] = fmt.Sprint(v)
		}
		return out
	}
	return k8s.Resources{Requests: read("requests"), Limits: read("limits")}
}
