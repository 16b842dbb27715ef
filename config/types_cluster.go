package config

// Cluster is what all machines of a cluster share, and on control plane nodes its secrets.
type Cluster struct {
	ID                             string                 `yaml:"id,omitempty"`     // 32 random bytes, base64
	Secret                         string                 `yaml:"secret,omitempty"` // 32 random bytes, base64; encrypts what members tell each other over third parties
	ControlPlane                   *ControlPlane          `yaml:"controlPlane,omitempty"`
	ClusterName                    string                 `yaml:"clusterName,omitempty"` // default talos; names the cluster in kubeconfigs
	Network                        *ClusterNetwork        `yaml:"network,omitempty"`
	Token                          string                 `yaml:"token,omitempty"`                     // kubelets join with it, abcdef.0123456789abcdef; required
	AescbcEncryptionSecret         string                 `yaml:"aescbcEncryptionSecret,omitempty"`    // base64 of 16, 24 or 32 bytes; of old clusters, still read where secretbox is set
	SecretboxEncryptionSecret      string                 `yaml:"secretboxEncryptionSecret,omitempty"` // base64 of 32 bytes; encrypts secrets in etcd; one of the two is required on control plane nodes
	CA                             *CertificateAndKey     `yaml:"ca,omitempty"`                        // Kubernetes's authority; required; the key on control plane nodes only
	AcceptedCAs                    []Certificate          `yaml:"acceptedCAs,omitempty"`               // trusted beside ca, while it is being replaced
	AggregatorCA                   *CertificateAndKey     `yaml:"aggregatorCA,omitempty"`              // authority of the aggregation layer; required on control plane nodes
	ServiceAccount                 *Key                   `yaml:"serviceAccount,omitempty"`            // signs service account tokens, ECDSA or RSA; required on control plane nodes
	APIServer                      *APIServer             `yaml:"apiServer,omitempty"`
	ControllerManager              *ControllerManager     `yaml:"controllerManager,omitempty"`
	Proxy                          *Proxy                 `yaml:"proxy,omitempty"`
	Scheduler                      *Scheduler             `yaml:"scheduler,omitempty"`
	Discovery                      *Discovery             `yaml:"discovery,omitempty"`
	Etcd                           *Etcd                  `yaml:"etcd,omitempty"`
	CoreDNS                        *CoreDNS               `yaml:"coreDNS,omitempty"`
	ExternalCloudProvider          *ExternalCloudProvider `yaml:"externalCloudProvider,omitempty"`
	ExtraManifests                 []string               `yaml:"extraManifests,omitempty"`       // URLs of manifests, https:// or http://
	ExtraManifestHeaders           map[string]string      `yaml:"extraManifestHeaders,omitempty"` // HTTP headers for extraManifests
	InlineManifests                []InlineManifest       `yaml:"inlineManifests,omitempty"`
	AdminKubeconfig                *AdminKubeconfig       `yaml:"adminKubeconfig,omitempty"`
	AllowSchedulingOnControlPlanes *bool                  `yaml:"allowSchedulingOnControlPlanes,omitempty"` // default false
}

// APIServer configures kube-apiserver; control plane nodes only.
type APIServer struct {
	Image                    string            `yaml:"image,omitempty"`     // default registry.k8s.io/kube-apiserver in DefaultKubernetesVersion
	ExtraArgs                map[string]string `yaml:"extraArgs,omitempty"` // flags without --; they win over ours, except those that the node's safety rests on
	ExtraVolumes             []VolumeMount     `yaml:"extraVolumes,omitempty"`
	Env                      map[string]string `yaml:"env,omitempty"`
	CertSANs                 []string          `yaml:"certSANs,omitempty"`                 // further names and addresses in the API server's certificate
	DisablePodSecurityPolicy *bool             `yaml:"disablePodSecurityPolicy,omitempty"` // of old Kubernetes; no effect
	AdmissionControl         []AdmissionPlugin `yaml:"admissionControl,omitempty"`
	AuditPolicy              map[string]any    `yaml:"auditPolicy,omitempty"` // audit.k8s.io/v1 Policy; default logs metadata of every request but anonymous health checks
	Resources                map[string]any    `yaml:"resources,omitempty"`   // requests and limits, as in a pod
	AuthorizationConfig      []Authorizer      `yaml:"authorizationConfig,omitempty"`
	AuthenticationConfig     map[string]any    `yaml:"authenticationConfig,omitempty"` // apiserver.config.k8s.io/v1 AuthenticationConfiguration; without anonymous in it, only health checks need no credentials
	EncryptionConfig         map[string]any    `yaml:"encryptionConfig,omitempty"`     // apiserver.config.k8s.io/v1 EncryptionConfiguration; instead of secretboxEncryptionSecret and aescbcEncryptionSecret
}

// AdminKubeconfig configures the administrator's kubeconfig.
type AdminKubeconfig struct {
	CertLifetime Duration `yaml:"certLifetime,omitempty"` // more than 0; default 8760h, a year
}

// AdmissionPlugin configures one admission plugin of kube-apiserver; the name PodSecurity replaces our defaults.
type AdmissionPlugin struct {
	Name          string         `yaml:"name,omitempty"`
	Configuration map[string]any `yaml:"configuration,omitempty"`
}

// Authorizer is one step of kube-apiserver's chain of authorizers; default is Node, then RBAC.
type Authorizer struct {
	Type    string         `yaml:"type,omitempty"`
	Name    string         `yaml:"name,omitempty"`
	Webhook map[string]any `yaml:"webhook,omitempty"`
}

// CNI chooses the pod network.
type CNI struct {
	Name    string      `yaml:"name,omitempty"` // flannel, custom or none; default flannel
	URLs    []string    `yaml:"urls,omitempty"` // manifests of a custom CNI; needed with custom, refused otherwise
	Flannel *FlannelCNI `yaml:"flannel,omitempty"`
}

// Discovery configures how members of the cluster find each other.
type Discovery struct {
	Enabled    *bool                `yaml:"enabled,omitempty"`
	Registries *DiscoveryRegistries `yaml:"registries,omitempty"`
}

// InlineManifest is a Kubernetes manifest that is part of the configuration.
type InlineManifest struct {
	Name     string `yaml:"name,omitempty"` // required, each once
	Contents string `yaml:"contents,omitempty"`
}

// ClusterNetwork configures the networks of pods and services.
type ClusterNetwork struct {
	CNI            *CNI     `yaml:"cni,omitempty"`
	DNSDomain      string   `yaml:"dnsDomain,omitempty"`      // default cluster.local
	PodSubnets     []string `yaml:"podSubnets,omitempty"`     // at most one per address family, apart from serviceSubnets; default 10.244.0.0/16
	ServiceSubnets []string `yaml:"serviceSubnets,omitempty"` // the same; 4 to 20 host bits; default 10.96.0.0/12
}

// ControlPlane says where the control plane is.
type ControlPlane struct {
	Endpoint           string `yaml:"endpoint,omitempty"`           // https://host:port of the API server for all; port default 443; required
	LocalAPIServerPort int    `yaml:"localAPIServerPort,omitempty"` // 1 to 65535; default 6443
}

// ControllerManager configures kube-controller-manager; control plane nodes only.
type ControllerManager struct {
	Image        string            `yaml:"image,omitempty"` // default registry.k8s.io/kube-controller-manager in DefaultKubernetesVersion
	ExtraArgs    map[string]string `yaml:"extraArgs,omitempty"`
	ExtraVolumes []VolumeMount     `yaml:"extraVolumes,omitempty"`
	Env          map[string]string `yaml:"env,omitempty"`
	Resources    map[string]any    `yaml:"resources,omitempty"`
}

// CoreDNS configures the cluster's DNS.
type CoreDNS struct {
	Disabled *bool  `yaml:"disabled,omitempty"` // default false
	Image    string `yaml:"image,omitempty"`    // default registry.k8s.io/coredns/coredns in CoreDNSVersion
}

// DiscoveryRegistries are the places where members make themselves known.
type DiscoveryRegistries struct {
	Kubernetes *DiscoveryKubernetes `yaml:"kubernetes,omitempty"`
	Service    *DiscoveryService    `yaml:"service,omitempty"`
}

// Etcd configures etcd; control plane nodes only.
type Etcd struct {
	Image             string             `yaml:"image,omitempty"`             // default registry.k8s.io/etcd in EtcdVersion
	CA                *CertificateAndKey `yaml:"ca,omitempty"`                // authority of etcd; required on control plane nodes
	ExtraArgs         map[string]string  `yaml:"extraArgs,omitempty"`         // flags without --
	AdvertisedSubnets []string           `yaml:"advertisedSubnets,omitempty"` // chooses the address that members use; ! before a subnet leaves it out
	ListenSubnets     []string           `yaml:"listenSubnets,omitempty"`     // chooses the addresses that etcd listens on; default advertisedSubnets, else all
}

// ExternalCloudProvider hands the cluster to a cloud controller manager.
type ExternalCloudProvider struct {
	Enabled   *bool    `yaml:"enabled,omitempty"`   // default false
	Manifests []string `yaml:"manifests,omitempty"` // URLs, https:// or http://
}

// FlannelCNI configures flannel.
type FlannelCNI struct {
	ExtraArgs []string `yaml:"extraArgs,omitempty"` // arguments of flanneld, with --
}

// Proxy configures kube-proxy.
type Proxy struct {
	Disabled  *bool             `yaml:"disabled,omitempty"`  // default false
	Image     string            `yaml:"image,omitempty"`     // default registry.k8s.io/kube-proxy in DefaultKubernetesVersion
	Mode      string            `yaml:"mode,omitempty"`      // nftables, iptables or ipvs; default nftables
	ExtraArgs map[string]string `yaml:"extraArgs,omitempty"` // flags without --
}

// DiscoveryKubernetes finds members through Kubernetes.
type DiscoveryKubernetes struct {
	Disabled *bool `yaml:"disabled,omitempty"`
}

// DiscoveryService finds members through a hosted service.
type DiscoveryService struct {
	Disabled *bool  `yaml:"disabled,omitempty"`
	Endpoint string `yaml:"endpoint,omitempty"`
}

// Scheduler configures kube-scheduler; control plane nodes only.
type Scheduler struct {
	Image        string            `yaml:"image,omitempty"` // default registry.k8s.io/kube-scheduler in DefaultKubernetesVersion
	ExtraArgs    map[string]string `yaml:"extraArgs,omitempty"`
	ExtraVolumes []VolumeMount     `yaml:"extraVolumes,omitempty"`
	Env          map[string]string `yaml:"env,omitempty"`
	Resources    map[string]any    `yaml:"resources,omitempty"`
	Config       map[string]any    `yaml:"config,omitempty"` // kubescheduler.config.k8s.io/v1 KubeSchedulerConfiguration, merged into ours
}

// VolumeMount is a host folder in a control plane pod.
type VolumeMount struct {
	HostPath  string `yaml:"hostPath,omitempty"`  // absolute
	MountPath string `yaml:"mountPath,omitempty"` // absolute
	Readonly  *bool  `yaml:"readonly,omitempty"`  // default false
}
