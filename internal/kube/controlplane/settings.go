package controlplane

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"talos/config"
	"talos/internal/resources/k8s"
	"talos/internal/resources/object"
)

// Strings are addresses or subnets as resources and flags have them.
func Strings[T fmt.Stringer](in []T) []string {
	var out []string
	for _, v := range in {
		out = append(out, v.String())
	}
	return out
}

func cloudProvider(cfg *config.Config) string {
	if config.Of(config.Of(config.Of(cfg.Cluster).ExternalCloudProvider).Enabled) {
		return "external"
	}
	return ""
}

// apiServerSettings is what the configuration says of kube-apiserver.
func apiServerSettings(cfg *config.Config, nodeIP netip.Addr) k8s.APIServerConfigSpec {
	c := config.Of(config.Of(cfg.Cluster).APIServer)
	extra := argValues(c.ExtraArgs)
	s := k8s.APIServerConfigSpec{
		Image:                cfg.APIServerImage(),
		CloudProvider:        cloudProvider(cfg),
		ControlPlaneEndpoint: cfg.Endpoint().String(),
		EtcdServers:          []string{"https://" + net.JoinHostPort("127.0.0.1", "2379")},
		LocalPort:            cfg.APIServerPort(),
		ServiceCIDR:          Strings(cfg.ServiceSubnets()),
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
	c := config.Of(config.Of(cfg.Cluster).ControllerManager)
	off := config.Of(config.Of(config.Of(config.Of(cfg.Machine).ControlPlane).ControllerManager).Disabled)
	s := k8s.ControllerManagerConfigSpec{
		Enabled:              !off,
		Image:                cfg.ControllerManagerImage(),
		CloudProvider:        cloudProvider(cfg),
		PodCIDRs:             Strings(cfg.PodSubnets()),
		ServiceCIDRs:         Strings(cfg.ServiceSubnets()),
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
	c := config.Of(config.Of(cfg.Cluster).Scheduler)
	off := config.Of(config.Of(config.Of(config.Of(cfg.Machine).ControlPlane).Scheduler).Disabled)
	s := k8s.SchedulerConfigSpec{
		Enabled:              !off,
		Image:                cfg.SchedulerImage(),
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
	c := config.Of(config.Of(cfg.Cluster).APIServer)
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
// once per request, without the content. Health checks that anybody may make
// are left out: every node asks every API server each second.
func auditSettings(cfg *config.Config) k8s.AuditPolicyConfigSpec {
	p := config.Of(config.Of(cfg.Cluster).APIServer).AuditPolicy
	if len(p) == 0 {
		p = map[string]any{
			"omitStages": []any{"RequestReceived"},
			"rules": []any{
				map[string]any{"level": "None", "users": []any{"system:anonymous"}, "nonResourceURLs": []any{"/livez", "/readyz", "/healthz"}},
				map[string]any{"level": "Metadata"},
			},
		}
	}
	values := map[string]any{"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
	maps.Copy(values, p)
	return k8s.AuditPolicyConfigSpec{Config: object.Map{Values: values}}
}

// authenticationSettings is how the user wants callers to be told apart. Where
// that says nothing of callers without credentials, they reach the health
// checks only.
func authenticationSettings(cfg *config.Config) k8s.AuthenticationConfigSpec {
	var conditions []any
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		conditions = append(conditions, map[string]any{"path": path})
	}
	values := map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "AuthenticationConfiguration",
		"anonymous":  map[string]any{"enabled": true, "conditions": conditions},
	}
	maps.Copy(values, config.Of(config.Of(cfg.Cluster).APIServer).AuthenticationConfig)
	return k8s.AuthenticationConfigSpec{Config: object.Map{Values: values}}
}

// authorizationSettings are the authorizers in the order in which they are
// asked; Node and RBAC are always among them.
func authorizationSettings(cfg *config.Config) k8s.AuthorizationConfigSpec {
	c := config.Of(config.Of(cfg.Cluster).APIServer)
	spec := k8s.AuthorizationConfigSpec{Image: cfg.APIServerImage()}
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
			Name: "extra-" + strconv.Itoa(i), HostPath: v.HostPath, MountPath: v.MountPath, Readonly: config.Of(v.Readonly),
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
