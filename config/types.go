package config

// The keys of the manifest. A field's comment gives its default, its bounds and
// what it goes together with; no comment: nothing is set by default and any
// value of the type will do. What a key leads to is in the table of keys.go.

// Config is the manifest: everything that one machine is told.
type Config struct {
	Version string   `yaml:"version,omitempty"` // v1alpha1; required
	Debug   *bool    `yaml:"debug,omitempty"`   // default false
	Machine *Machine `yaml:"machine,omitempty"`
	Cluster *Cluster `yaml:"cluster,omitempty"`
}

// Machine is what concerns this machine alone, and how it belongs to its cluster.
type Machine struct {
	Type                     string                  `yaml:"type,omitempty"`        // controlplane or worker; required; kept until the node is reset
	Token                    string                  `yaml:"token,omitempty"`       // shown to trustd to join, abcdef.0123456789abcdef; required
	CA                       *CertificateAndKey      `yaml:"ca,omitempty"`          // authority of the machines' API; required; the key on control plane nodes only
	AcceptedCAs              []Certificate           `yaml:"acceptedCAs,omitempty"` // trusted beside ca, while it is being replaced
	CertSANs                 []string                `yaml:"certSANs,omitempty"`    // further names and addresses in the certificate of the machine's API
	ControlPlane             *MachineControlPlane    `yaml:"controlPlane,omitempty"`
	Kubelet                  *Kubelet                `yaml:"kubelet,omitempty"`
	Pods                     []map[string]any        `yaml:"pods,omitempty"` // static pods, as Kubernetes manifests of kind Pod
	Network                  *Network                `yaml:"network,omitempty"`
	Install                  *Install                `yaml:"install,omitempty"` // the disk that the machine is installed to; without one it runs from memory
	Disks                    []ExtraDisk             `yaml:"disks,omitempty"`
	Files                    []MachineFile           `yaml:"files,omitempty"` // written in order at boot
	Env                      map[string]string       `yaml:"env,omitempty"`   // environment of the operating system's services, such as proxies
	Time                     *Time                   `yaml:"time,omitempty"`
	Sysctls                  map[string]string       `yaml:"sysctls,omitempty"` // kernel parameters, by name
	Sysfs                    map[string]string       `yaml:"sysfs,omitempty"`   // files below /sys, by name
	Registries               *Registries             `yaml:"registries,omitempty"`
	SystemDiskEncryption     *SystemDiskEncryption   `yaml:"systemDiskEncryption,omitempty"`
	Features                 *Features               `yaml:"features,omitempty"`
	SecurityProfile          *SecurityProfile        `yaml:"securityProfile,omitempty"`
	Udev                     *Udev                   `yaml:"udev,omitempty"`
	Watchdog                 *Watchdog               `yaml:"watchdog,omitempty"`
	Logging                  *Logging                `yaml:"logging,omitempty"`
	Kernel                   *Kernel                 `yaml:"kernel,omitempty"`
	SeccompProfiles          []MachineSeccompProfile `yaml:"seccompProfiles,omitempty"`
	BaseRuntimeSpecOverrides map[string]any          `yaml:"baseRuntimeSpecOverrides,omitempty"` // merged into the OCI spec of every pod
	NodeLabels               map[string]string       `yaml:"nodeLabels,omitempty"`               // of the Kubernetes node; what is taken out here is taken off there
	NodeAnnotations          map[string]string       `yaml:"nodeAnnotations,omitempty"`          // of the Kubernetes node; what is taken out here is taken off there
	NodeTaints               map[string]string       `yaml:"nodeTaints,omitempty"`               // key: value:effect, or key: effect; control plane nodes get theirs beside
}

// Encryption configures the encryption of a partition.
type Encryption struct {
	Provider  string          `yaml:"provider,omitempty"`
	Keys      []EncryptionKey `yaml:"keys,omitempty"`
	Cipher    string          `yaml:"cipher,omitempty"`
	KeySize   int             `yaml:"keySize,omitempty"`
	BlockSize int             `yaml:"blockSize,omitempty"`
	Options   []string        `yaml:"options,omitempty"`
}

// EncryptionKey is one way to open an encrypted partition.
type EncryptionKey struct {
	Static *EncryptionKeyStatic `yaml:"static,omitempty"`
	NodeID *EncryptionKeyNodeID `yaml:"nodeID,omitempty"`
	KMS    *EncryptionKeyKMS    `yaml:"kms,omitempty"`
	Slot   int                  `yaml:"slot,omitempty"`
	TPM    *EncryptionKeyTPM    `yaml:"tpm,omitempty"`
}

// EncryptionKeyKMS gets the key from a network service.
type EncryptionKeyKMS struct {
	Endpoint string `yaml:"endpoint,omitempty"`
}

// EncryptionKeyNodeID derives the key from the machine's identity.
type EncryptionKeyNodeID struct {
}

// EncryptionKeyStatic is a key given in the configuration.
type EncryptionKeyStatic struct {
	Passphrase string `yaml:"passphrase,omitempty"`
}

// EncryptionKeyTPM seals the key with the TPM.
type EncryptionKeyTPM struct {
	CheckSecurebootStatusOnEnroll *bool `yaml:"checkSecurebootStatusOnEnroll,omitempty"`
}

// ExtraMount is a mount into the kubelet's container.
type ExtraMount struct {
	Destination string           `yaml:"destination,omitempty"` // absolute; required
	Type        string           `yaml:"type,omitempty"`        // default bind
	Source      string           `yaml:"source,omitempty"`
	Options     []string         `yaml:"options,omitempty"`
	UidMappings []LinuxIDMapping `yaml:"uidMappings,omitempty"`
	GidMappings []LinuxIDMapping `yaml:"gidMappings,omitempty"`
}

// Watchdog is the hardware timer that resets a machine that hangs. A machine that
// has one uses it in any case.
type Watchdog struct {
	Device  string   `yaml:"device,omitempty"`  // default /dev/watchdog0, the only one that is used
	Timeout Duration `yaml:"timeout,omitempty"` // 10s to 10m; how long a machine may make no progress until it is reset; default 1m
}

// SecurityProfile is further isolation.
type SecurityProfile struct {
	WorkloadIsolation bool `yaml:"workloadIsolation,omitempty"` // Kubernetes's containerd, kubelet, etcd and all pods in PID and mount namespaces of their own, apart from machined
}

// Features switches parts of the operating system.
type Features struct {
	RBAC                     *bool                     `yaml:"rbac,omitempty"`           // true only: roles are always checked
	StableHostname           *bool                     `yaml:"stableHostname,omitempty"` // the default host name is always derived from the machine's identity
	KubernetesTalosAPIAccess *KubernetesTalosAPIAccess `yaml:"kubernetesTalosAPIAccess,omitempty"`
	ApidCheckExtKeyUsage     *bool                     `yaml:"apidCheckExtKeyUsage,omitempty"` // true only: a certificate's purpose is always checked
	DiskQuotaSupport         *bool                     `yaml:"diskQuotaSupport,omitempty"`     // the kubelet measures volumes by project quotas, where the file system of /var has them
	KubePrism                *KubePrism                `yaml:"kubePrism,omitempty"`
	HostDNS                  *HostDNS                  `yaml:"hostDNS,omitempty"`
	ImageCache               *ImageCache               `yaml:"imageCache,omitempty"`
	NodeAddressSortAlgorithm string                    `yaml:"nodeAddressSortAlgorithm,omitempty"` // v1: by address; v2: longer prefixes first; default v1
}

// HostDNS configures a resolver on the node.
type HostDNS struct {
	Enabled              *bool `yaml:"enabled,omitempty"`              // answers on 127.0.0.53, to which /etc/resolv.conf then points; default false
	ForwardKubeDNSToHost *bool `yaml:"forwardKubeDNSToHost,omitempty"` // the cluster's DNS asks it too, on 169.254.116.108; default false
	ResolveMemberNames   *bool `yaml:"resolveMemberNames,omitempty"`   // it knows the cluster's nodes by their host names; default false
}

// ImageCache configures the cache of images.
type ImageCache struct {
	LocalEnabled *bool `yaml:"localEnabled,omitempty"`
}

// Install says how the operating system is installed on disk.
type Install struct {
	Disk              string               `yaml:"disk,omitempty"`
	DiskSelector      *InstallDiskSelector `yaml:"diskSelector,omitempty"`
	ExtraKernelArgs   []string             `yaml:"extraKernelArgs,omitempty"`
	Image             string               `yaml:"image,omitempty"`
	Wipe              *bool                `yaml:"wipe,omitempty"`
	LegacyBIOSSupport *bool                `yaml:"legacyBIOSSupport,omitempty"`
}

// ExtraDisk is a disk beside the system's, with partitions for the user's data.
// Only an empty one is partitioned.
type ExtraDisk struct {
	Device     string          `yaml:"device,omitempty"`
	Partitions []DiskPartition `yaml:"partitions,omitempty"`
}

// DiskPartition is a partition with an XFS file system in it. The last one may
// leave out its size, and takes what is left.
type DiskPartition struct {
	Size       string `yaml:"size,omitempty"`
	Mountpoint string `yaml:"mountpoint,omitempty"`
}

// InstallDiskSelector chooses the disk by its properties; all that are given must match.
type InstallDiskSelector struct {
	Size     string `yaml:"size,omitempty"`
	Name     string `yaml:"name,omitempty"`
	Model    string `yaml:"model,omitempty"`
	Serial   string `yaml:"serial,omitempty"`
	Modalias string `yaml:"modalias,omitempty"`
	UUID     string `yaml:"uuid,omitempty"`
	WWID     string `yaml:"wwid,omitempty"`
	Type     string `yaml:"type,omitempty"`
	BusPath  string `yaml:"busPath,omitempty"`
	// An expression in CEL over disk and system_disk, such as: disk.transport == "nvme" && disk.size >= 100u * GiB
	Match string `yaml:"match,omitempty"`
}

// Kernel configures the kernel.
type Kernel struct {
	Modules []KernelModule `yaml:"modules,omitempty"`
}

// KernelModule is a module to load.
type KernelModule struct {
	Name       string   `yaml:"name,omitempty"`
	Parameters []string `yaml:"parameters,omitempty"`
}

// KubePrism configures the node's own balancer over all API servers.
type KubePrism struct {
	Enabled *bool `yaml:"enabled,omitempty"`
	Port    int   `yaml:"port,omitempty"`
}

// Kubelet configures the kubelet.
type Kubelet struct {
	Image                               string            `yaml:"image,omitempty"`      // default registry.talos.dev/kubelet in DefaultKubernetesVersion
	ClusterDNS                          []string          `yaml:"clusterDNS,omitempty"` // default the tenth address of each of serviceSubnets
	ExtraArgs                           map[string]string `yaml:"extraArgs,omitempty"`  // flags without --
	ExtraMounts                         []ExtraMount      `yaml:"extraMounts,omitempty"`
	ExtraConfig                         map[string]any    `yaml:"extraConfig,omitempty"`                         // merged into the KubeletConfiguration; keys that the node decides are refused
	CredentialProviderConfig            map[string]any    `yaml:"credentialProviderConfig,omitempty"`            // kubelet.config.k8s.io/v1 CredentialProviderConfig
	DefaultRuntimeSeccompProfileEnabled *bool             `yaml:"defaultRuntimeSeccompProfileEnabled,omitempty"` // default true
	RegisterWithFQDN                    *bool             `yaml:"registerWithFQDN,omitempty"`                    // default false
	NodeIP                              *KubeletNodeIP    `yaml:"nodeIP,omitempty"`
	SkipNodeRegistration                *bool             `yaml:"skipNodeRegistration,omitempty"`      // default false; true runs pods without Kubernetes
	DisableManifestsDirectory           *bool             `yaml:"disableManifestsDirectory,omitempty"` // default true: static pods come from pods and the control plane alone
}

// KubeletNodeIP chooses the node's addresses among all it has.
type KubeletNodeIP struct {
	ValidSubnets []string `yaml:"validSubnets,omitempty"` // ! before a subnet leaves it out; default any
}

// KubernetesTalosAPIAccess lets pods reach the machine's API.
type KubernetesTalosAPIAccess struct {
	Enabled                     *bool    `yaml:"enabled,omitempty"`                     // on control plane nodes only; default false
	AllowedRoles                []string `yaml:"allowedRoles,omitempty"`                // that a ServiceAccount of group talos.dev may ask for; none: no access
	AllowedKubernetesNamespaces []string `yaml:"allowedKubernetesNamespaces,omitempty"` // in which such objects count; none: no access
}

// LinuxIDMapping maps user or group ids of a mount.
type LinuxIDMapping struct {
	ContainerID int `yaml:"containerID,omitempty"`
	HostID      int `yaml:"hostID,omitempty"`
	Size        int `yaml:"size,omitempty"`
}

// Logging sends the services' logs away.
type Logging struct {
	Destinations []LoggingDestination `yaml:"destinations,omitempty"`
}

// LoggingDestination is one receiver of logs.
type LoggingDestination struct {
	Endpoint  string            `yaml:"endpoint,omitempty"`  // tcp:// or udp:// with port; required
	Format    string            `yaml:"format,omitempty"`    // json_lines
	ExtraTags map[string]string `yaml:"extraTags,omitempty"` // added to every line
}

// MachineControlPlane switches parts of the control plane off.
type MachineControlPlane struct {
	ControllerManager *MachineControllerManager `yaml:"controllerManager,omitempty"`
	Scheduler         *MachineScheduler         `yaml:"scheduler,omitempty"`
}

// MachineControllerManager switches kube-controller-manager.
type MachineControllerManager struct {
	Disabled *bool `yaml:"disabled,omitempty"`
}

// MachineFile is a file to write at boot.
type MachineFile struct {
	Content     string   `yaml:"content,omitempty"`
	Permissions FileMode `yaml:"permissions,omitempty"` // octal, at most 0o7777
	Path        string   `yaml:"path,omitempty"`        // absolute, below /var, /opt or /etc/cni; required
	Op          string   `yaml:"op,omitempty"`          // create, append or overwrite
}

// MachineScheduler switches kube-scheduler.
type MachineScheduler struct {
	Disabled *bool `yaml:"disabled,omitempty"`
}

// MachineSeccompProfile is a seccomp profile that pods can name.
type MachineSeccompProfile struct {
	Name  string         `yaml:"name,omitempty"`
	Value map[string]any `yaml:"value,omitempty"`
}

// Registries configures where images come from.
type Registries struct {
	Mirrors map[string]RegistryMirror `yaml:"mirrors,omitempty"` // by registry; * for all others
	Config  map[string]Registry       `yaml:"config,omitempty"`  // by host, or host:port
}

// RegistryAuth is how the node authenticates to a registry.
type RegistryAuth struct {
	Username      string `yaml:"username,omitempty"`
	Password      string `yaml:"password,omitempty"`
	Auth          string `yaml:"auth,omitempty"`
	IdentityToken string `yaml:"identityToken,omitempty"`
}

// Registry configures one registry, by host and port.
type Registry struct {
	TLS  *RegistryTLS  `yaml:"tls,omitempty"`
	Auth *RegistryAuth `yaml:"auth,omitempty"`
}

// RegistryMirror replaces a registry, by its name, by others.
type RegistryMirror struct {
	Endpoints    []string `yaml:"endpoints,omitempty"`    // https:// or http:// URLs, tried in order before the registry itself
	OverridePath *bool    `yaml:"overridePath,omitempty"` // default false; true uses the endpoints' own paths
	SkipFallback *bool    `yaml:"skipFallback,omitempty"` // default false; true never asks the registry itself
}

// RegistryTLS configures TLS with a registry.
type RegistryTLS struct {
	ClientIdentity     *CertificateAndKey `yaml:"clientIdentity,omitempty"`
	CA                 Base64             `yaml:"ca,omitempty"`                 // trusted for this registry beside the system's
	InsecureSkipVerify *bool              `yaml:"insecureSkipVerify,omitempty"` // default false
}

// SystemDiskEncryption encrypts the system's partitions.
type SystemDiskEncryption struct {
	State     *Encryption `yaml:"state,omitempty"`
	Ephemeral *Encryption `yaml:"ephemeral,omitempty"`
}

// Time configures where the time comes from.
type Time struct {
	Disabled    *bool    `yaml:"disabled,omitempty"`    // default false
	Servers     []string `yaml:"servers,omitempty"`     // names or addresses; default time.cloudflare.com, or what DHCP gives
	BootTimeout Duration `yaml:"bootTimeout,omitempty"` // 0 or more; how long the boot waits for the time; default 0, for ever
}

// Udev configures device nodes.
type Udev struct {
	Rules []string `yaml:"rules,omitempty"`
}
