package controlplane

import (
	"strconv"
	"strings"

	"talos/internal/layout"
	"talos/internal/resources/k8s"
)

// Names of the components: of their pods' containers, folders and programs.
const (
	APIServer = "kube-apiserver"
	Manager   = "kube-controller-manager"
	Scheduler = "kube-scheduler"
)

// dir is the folder of a component's secrets, on the node and in its container.
func dir(component string) string { return layout.SecretsDir + "/" + component }

// AuditDir is where kube-apiserver writes its audit log.
const AuditDir = layout.EphemeralDir + "/log/audit/kube"

var apiServerPolicy = policy{
	protected: []string{
		"secure-port", "tls-cert-file", "tls-private-key-file", "client-ca-file", "etcd-servers", "etcd-cafile", "etcd-certfile",
		"etcd-keyfile", "kubelet-client-certificate", "kubelet-client-key", "kubelet-certificate-authority", "allow-privileged",
		"proxy-client-cert-file", "proxy-client-key-file", "requestheader-client-ca-file", "service-account-signing-key-file",
		"encryption-provider-config", "service-cluster-ip-range",
	},
	additive: []string{"enable-admission-plugins", "authorization-mode"},
}

// apiServerArgs are the flags of kube-apiserver. They follow the CIS benchmark
// (docs/reference/cis.md); structured says that the user gives authorizers.
func apiServerArgs(s k8s.APIServerConfigSpec, structured bool) []string {
	file := func(name string) string { return dir(APIServer) + "/" + name }
	a := args{}
	a.set("allow-privileged", "true")
	a.set("secure-port", strconv.Itoa(s.LocalPort))
	a.set("bind-address", "::")
	if s.AdvertisedAddress != "" {
		a.set("advertise-address", s.AdvertisedAddress)
		if !strings.Contains(s.AdvertisedAddress, ":") {
			a.set("bind-address", "0.0.0.0")
		}
	}
	a.set("tls-cert-file", file("apiserver.crt"))
	a.set("tls-private-key-file", file("apiserver.key"))
	a.set("tls-min-version", "VersionTLS13")
	a.set("profiling", "false")

	a.set("client-ca-file", file("ca.crt"))
	a.set("enable-bootstrap-token-auth", "true")
	if s.UseAuthenticationConfig {
		a.set("authentication-config", file("authentication.yaml"))
	} else {
		a.set("anonymous-auth", "false")
	}
	if structured && !has(s.ExtraArgs, "authorization-mode", "authorization-webhook-*", "authorization-config") {
		a.set("authorization-config", file("authorization.yaml"))
	} else if !has(s.ExtraArgs, "authorization-config") {
		a.set("authorization-mode", "Node,RBAC")
	}
	a.set("enable-admission-plugins", "NodeRestriction")
	a.set("admission-control-config-file", file("admission.yaml"))
	auditFlags(a, file)

	a.set("etcd-servers", strings.Join(s.EtcdServers, ","))
	a.set("etcd-cafile", file("etcd-ca.crt"))
	a.set("etcd-certfile", file("etcd-client.crt"))
	a.set("etcd-keyfile", file("etcd-client.key"))
	a.set("encryption-provider-config", file("encryption.yaml"))

	a.set("kubelet-certificate-authority", file("ca.crt"))
	a.set("kubelet-client-certificate", file("kubelet-client.crt"))
	a.set("kubelet-client-key", file("kubelet-client.key"))
	a.set("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname")

	a.set("requestheader-client-ca-file", file("front-proxy-ca.crt"))
	a.set("requestheader-allowed-names", "front-proxy-client")
	a.set("requestheader-extra-headers-prefix", "X-Remote-Extra-")
	a.set("requestheader-group-headers", "X-Remote-Group")
	a.set("requestheader-username-headers", "X-Remote-User")
	a.set("proxy-client-cert-file", file("front-proxy-client.crt"))
	a.set("proxy-client-key-file", file("front-proxy-client.key"))

	a.set("service-cluster-ip-range", strings.Join(s.ServiceCIDR, ","))
	a.set("service-account-issuer", s.ControlPlaneEndpoint)
	a.set("api-audiences", s.ControlPlaneEndpoint)
	a.set("service-account-key-file", file("service-account.pub"))
	a.set("service-account-signing-key-file", file("service-account.key"))
	a.set("service-account-lookup", "true")
	a.set("service-account-extend-token-expiration", "false")
	a.merge(s.ExtraArgs, apiServerPolicy)
	return a.list()
}

func auditFlags(a args, file func(string) string) {
	a.set("audit-policy-file", file("audit-policy.yaml"))
	a.set("audit-log-path", AuditDir+"/kube-apiserver.log")
	a.set("audit-log-maxage", "30")
	a.set("audit-log-maxbackup", "10")
	a.set("audit-log-maxsize", "100")
}

var managerPolicy = policy{
	protected: []string{
		"kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig", "root-ca-file", "service-account-private-key-file",
		"cluster-signing-cert-file", "cluster-signing-key-file", "use-service-account-credentials",
	},
	additive: []string{"controllers"},
}

// managerArgs are the flags of kube-controller-manager.
func managerArgs(s k8s.ControllerManagerConfigSpec) []string {
	file := func(name string) string { return dir(Manager) + "/" + name }
	a := args{}
	a.set("bind-address", "127.0.0.1")
	a.set("allocate-node-cidrs", "true")
	a.set("cluster-cidr", strings.Join(s.PodCIDRs, ","))
	a.set("service-cluster-ip-range", strings.Join(s.ServiceCIDRs, ","))
	maskSizes(a, s)
	a.set("kubeconfig", file("kubeconfig"))
	a.set("authentication-kubeconfig", file("kubeconfig"))
	a.set("authorization-kubeconfig", file("kubeconfig"))
	a.set("root-ca-file", file("ca.crt"))
	a.set("service-account-private-key-file", file("service-account.key"))
	a.set("cluster-signing-cert-file", file("issuing-ca.crt"))
	a.set("cluster-signing-key-file", file("issuing-ca.key"))
	a.set("use-service-account-credentials", "true")
	a.set("controllers", "*,tokencleaner")
	a.set("configure-cloud-routes", "false")
	a.set("leader-elect", "true")
	// Each controller's own credentials are fetched at the start; with the
	// defaults (20, 30) that alone takes five seconds. The API server's priority
	// levels are what protects it.
	a.set("kube-api-qps", "200")
	a.set("kube-api-burst", "400")
	a.set("profiling", "false")
	a.set("terminated-pod-gc-threshold", "12500")
	a.set("tls-min-version", "VersionTLS13")
	if s.CloudProvider != "" {
		a.set("cloud-provider", s.CloudProvider)
	}
	a.merge(s.ExtraArgs, managerPolicy)
	return a.list()
}

// maskSizes sets the size of a node's share of the pod network. Two families
// have a flag each; a single one has a flag of its own.
func maskSizes(a args, s k8s.ControllerManagerConfigSpec) {
	v4, v6 := strconv.Itoa(s.NodeCIDRMaskSizeIPv4), strconv.Itoa(s.NodeCIDRMaskSizeIPv6)
	switch {
	case len(s.PodCIDRs) > 1:
		a.set("node-cidr-mask-size-ipv4", v4)
		a.set("node-cidr-mask-size-ipv6", v6)
	case len(s.PodCIDRs) == 1 && strings.Contains(s.PodCIDRs[0], ":"):
		a.set("node-cidr-mask-size", v6)
	default:
		a.set("node-cidr-mask-size", v4)
	}
}

var schedulerPolicy = policy{
	protected: []string{"config", "kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"},
}

// schedulerArgs are the flags of kube-scheduler; the rest is in its
// configuration file.
func schedulerArgs(s k8s.SchedulerConfigSpec) []string {
	file := func(name string) string { return dir(Scheduler) + "/" + name }
	a := args{}
	a.set("bind-address", "127.0.0.1")
	a.set("config", file("scheduler.yaml"))
	a.set("authentication-kubeconfig", file("kubeconfig"))
	a.set("authorization-kubeconfig", file("kubeconfig"))
	a.set("leader-elect", "true")
	a.set("profiling", "false")
	a.set("tls-min-version", "VersionTLS13")
	a.merge(s.ExtraArgs, schedulerPolicy)
	return a.list()
}
