package config

// Config …
type Config struct {
	Version string   `yaml:"version,omitempty"`
	Debug   *bool    `yaml:"debug,omitempty"`
	Machine *Machine `yaml:"machine,omitempty"`
	Cluster *Cluster `yaml:"cluster,omitempty"`
}

// Machine …
type Machine struct {
	Type                     string                  `yaml:"type,omitempty"`
	Token                    string                  `yaml:"token,omitempty"`
	CA                       *CertificateAndKey      `yaml:"ca,omitempty"`
	AcceptedCAs              []Certificate           `yaml:"acceptedCAs,omitempty"`
	CertSANs                 []string                `yaml:"certSANs,omitempty"`
	ControlPlane             *MachineControlPlane    `yaml:"controlPlane,omitempty"`
	Kubelet                  *Kubelet                `yaml:"kubelet,omitempty"`
	Pods                     []map[string]any        `yaml:"pods,omitempty"`
	Network                  *Network                `yaml:"network,omitempty"`
	Install                  *Install                `yaml:"install,omitempty"`
	Files                    []MachineFile           `yaml:"files,omitempty"`
	Env                      map[string]string       `yaml:"env,omitempty"`
	Time                     *Time                   `yaml:"time,omitempty"`
	Sysctls                  map[string]string       `yaml:"sysctls,omitempty"`
	Sysfs                    map[string]string       `yaml:"sysfs,omitempty"`
	Registries               *Registries             `yaml:"registries,omitempty"`
	SystemDiskEncryption     *SystemDiskEncryption   `yaml:"systemDiskEncryption,omitempty"`
	Features                 *Features               `yaml:"features,omitempty"`
	Udev                     *Udev                   `yaml:"udev,omitempty"`
	Logging                  *Logging                `yaml:"logging,omitempty"`
	Kernel                   *Kernel                 `yaml:"kernel,omitempty"`
	SeccompProfiles          []MachineSeccompProfile `yaml:"seccompProfiles,omitempty"`
	BaseRuntimeSpecOverrides map[string]any          `yaml:"baseRuntimeSpecOverrides,omitempty"`
	NodeLabels               map[string]string       `yaml:"nodeLabels,omitempty"`
	NodeAnnotations          map[string]string       `yaml:"nodeAnnotations,omitempty"`
	NodeTaints               map[string]string       `yaml:"nodeTaints,omitempty"`
}

// APIServer …
type APIServer struct {
	Image                    string            `yaml:"image,omitempty"`
	ExtraArgs                map[string]string `yaml:"extraArgs,omitempty"`
	ExtraVolumes             []VolumeMount     `yaml:"extraVolumes,omitempty"`
	Env                      map[string]string `yaml:"env,omitempty"`
	CertSANs                 []string          `yaml:"certSANs,omitempty"`
	DisablePodSecurityPolicy *bool             `yaml:"disablePodSecurityPolicy,omitempty"`
	AdmissionControl         []AdmissionPlugin `yaml:"admissionControl,omitempty"`
	AuditPolicy              map[string]any    `yaml:"auditPolicy,omitempty"`
	Resources                map[string]any    `yaml:"resources,omitempty"`
	AuthorizationConfig      []Authorizer      `yaml:"authorizationConfig,omitempty"`
}

// AdminKubeconfig …
type AdminKubeconfig struct {
	CertLifetime Duration `yaml:"certLifetime,omitempty"`
}

// AdmissionPlugin …
type AdmissionPlugin struct {
	Name          string         `yaml:"name,omitempty"`
	Configuration map[string]any `yaml:"configuration,omitempty"`
}

// Authorizer …
type Authorizer struct {
	Type    string         `yaml:"type,omitempty"`
	Name    string         `yaml:"name,omitempty"`
	Webhook map[string]any `yaml:"webhook,omitempty"`
}

// Bond …
type Bond struct {
	Interfaces      []string                `yaml:"interfaces,omitempty"`
	DeviceSelectors []NetworkDeviceSelector `yaml:"deviceSelectors,omitempty"`
	ArpIPTarget     []string                `yaml:"arpIPTarget,omitempty"`
	Mode            string                  `yaml:"mode,omitempty"`
	XmitHashPolicy  string                  `yaml:"xmitHashPolicy,omitempty"`
	LacpRate        string                  `yaml:"lacpRate,omitempty"`
	AdActorSystem   string                  `yaml:"adActorSystem,omitempty"`
	ArpValidate     string                  `yaml:"arpValidate,omitempty"`
	ArpAllTargets   string                  `yaml:"arpAllTargets,omitempty"`
	Primary         string                  `yaml:"primary,omitempty"`
	PrimaryReselect string                  `yaml:"primaryReselect,omitempty"`
	FailOverMac     string                  `yaml:"failOverMac,omitempty"`
	AdSelect        string                  `yaml:"adSelect,omitempty"`
	Miimon          int                     `yaml:"miimon,omitempty"`
	Updelay         int                     `yaml:"updelay,omitempty"`
	Downdelay       int                     `yaml:"downdelay,omitempty"`
	ArpInterval     int                     `yaml:"arpInterval,omitempty"`
	ResendIgmp      int                     `yaml:"resendIgmp,omitempty"`
	MinLinks        int                     `yaml:"minLinks,omitempty"`
	LpInterval      int                     `yaml:"lpInterval,omitempty"`
	PacketsPerSlave int                     `yaml:"packetsPerSlave,omitempty"`
	NumPeerNotif    int                     `yaml:"numPeerNotif,omitempty"`
	TlbDynamicLb    int                     `yaml:"tlbDynamicLb,omitempty"`
	AllSlavesActive int                     `yaml:"allSlavesActive,omitempty"`
	UseCarrier      *bool                   `yaml:"useCarrier,omitempty"`
	AdActorSysPrio  int                     `yaml:"adActorSysPrio,omitempty"`
	AdUserPortKey   int                     `yaml:"adUserPortKey,omitempty"`
	PeerNotifyDelay int                     `yaml:"peerNotifyDelay,omitempty"`
}

// Bridge …
type Bridge struct {
	Interfaces []string    `yaml:"interfaces,omitempty"`
	STP        *STP        `yaml:"stp,omitempty"`
	Vlan       *BridgeVLAN `yaml:"vlan,omitempty"`
}

// BridgePort …
type BridgePort struct {
	Master string `yaml:"master,omitempty"`
}

// BridgeVLAN …
type BridgeVLAN struct {
	VlanFiltering *bool `yaml:"vlanFiltering,omitempty"`
}

// CNI …
type CNI struct {
	Name    string      `yaml:"name,omitempty"`
	URLs    []string    `yaml:"urls,omitempty"`
	Flannel *FlannelCNI `yaml:"flannel,omitempty"`
}

// Cluster …
type Cluster struct {
	ID                             string                 `yaml:"id,omitempty"`
	Secret                         string                 `yaml:"secret,omitempty"`
	ControlPlane                   *ControlPlane          `yaml:"controlPlane,omitempty"`
	ClusterName                    string                 `yaml:"clusterName,omitempty"`
	Network                        *ClusterNetwork        `yaml:"network,omitempty"`
	Token                          string                 `yaml:"token,omitempty"`
	AescbcEncryptionSecret         string                 `yaml:"aescbcEncryptionSecret,omitempty"`
	SecretboxEncryptionSecret      string                 `yaml:"secretboxEncryptionSecret,omitempty"`
	CA                             *CertificateAndKey     `yaml:"ca,omitempty"`
	AcceptedCAs                    []Certificate          `yaml:"acceptedCAs,omitempty"`
	AggregatorCA                   *CertificateAndKey     `yaml:"aggregatorCA,omitempty"`
	ServiceAccount                 *Key                   `yaml:"serviceAccount,omitempty"`
	APIServer                      *APIServer             `yaml:"apiServer,omitempty"`
	ControllerManager              *ControllerManager     `yaml:"controllerManager,omitempty"`
	Proxy                          *Proxy                 `yaml:"proxy,omitempty"`
	Scheduler                      *Scheduler             `yaml:"scheduler,omitempty"`
	Discovery                      *Discovery             `yaml:"discovery,omitempty"`
	Etcd                           *Etcd                  `yaml:"etcd,omitempty"`
	CoreDNS                        *CoreDNS               `yaml:"coreDNS,omitempty"`
	ExternalCloudProvider          *ExternalCloudProvider `yaml:"externalCloudProvider,omitempty"`
	ExtraManifests                 []string               `yaml:"extraManifests,omitempty"`
	ExtraManifestHeaders           map[string]string      `yaml:"extraManifestHeaders,omitempty"`
	InlineManifests                []InlineManifest       `yaml:"inlineManifests,omitempty"`
	AdminKubeconfig                *AdminKubeconfig       `yaml:"adminKubeconfig,omitempty"`
	AllowSchedulingOnControlPlanes *bool                  `yaml:"allowSchedulingOnControlPlanes,omitempty"`
}

// Discovery …
type Discovery struct {
	Enabled    *bool                `yaml:"enabled,omitempty"`
	Registries *DiscoveryRegistries `yaml:"registries,omitempty"`
}

// InlineManifest …
type InlineManifest struct {
	Name     string `yaml:"name,omitempty"`
	Contents string `yaml:"contents,omitempty"`
}

// ClusterNetwork …
type ClusterNetwork struct {
	CNI            *CNI     `yaml:"cni,omitempty"`
	DNSDomain      string   `yaml:"dnsDomain,omitempty"`
	PodSubnets     []string `yaml:"podSubnets,omitempty"`
	ServiceSubnets []string `yaml:"serviceSubnets,omitempty"`
}

// ControlPlane …
type ControlPlane struct {
	Endpoint           string `yaml:"endpoint,omitempty"`
	LocalAPIServerPort int    `yaml:"localAPIServerPort,omitempty"`
}

// ControllerManager …
type ControllerManager struct {
	Image        string            `yaml:"image,omitempty"`
	ExtraArgs    map[string]string `yaml:"extraArgs,omitempty"`
	ExtraVolumes []VolumeMount     `yaml:"extraVolumes,omitempty"`
	Env          map[string]string `yaml:"env,omitempty"`
	Resources    map[string]any    `yaml:"resources,omitempty"`
}

// CoreDNS …
type CoreDNS struct {
	Disabled *bool  `yaml:"disabled,omitempty"`
	Image    string `yaml:"image,omitempty"`
}

// DHCPOptions …
type DHCPOptions struct {
	RouteMetric int    `yaml:"routeMetric,omitempty"`
	IPv4        *bool  `yaml:"ipv4,omitempty"`
	IPv6        *bool  `yaml:"ipv6,omitempty"`
	DUIDv6      string `yaml:"duidv6,omitempty"`
}

// Device …
type Device struct {
	Interface      string                 `yaml:"interface,omitempty"`
	DeviceSelector *NetworkDeviceSelector `yaml:"deviceSelector,omitempty"`
	Addresses      []string               `yaml:"addresses,omitempty"`
	Routes         []Route                `yaml:"routes,omitempty"`
	Bond           *Bond                  `yaml:"bond,omitempty"`
	Bridge         *Bridge                `yaml:"bridge,omitempty"`
	BridgePort     *BridgePort            `yaml:"bridgePort,omitempty"`
	Vlans          []Vlan                 `yaml:"vlans,omitempty"`
	MTU            int                    `yaml:"mtu,omitempty"`
	DHCP           *bool                  `yaml:"dhcp,omitempty"`
	Ignore         *bool                  `yaml:"ignore,omitempty"`
	Dummy          *bool                  `yaml:"dummy,omitempty"`
	DHCPOptions    *DHCPOptions           `yaml:"dhcpOptions,omitempty"`
	Wireguard      *DeviceWireguard       `yaml:"wireguard,omitempty"`
	VIP            *DeviceVIP             `yaml:"vip,omitempty"`
}

// DeviceVIP …
type DeviceVIP struct {
	IP           string           `yaml:"ip,omitempty"`
	EquinixMetal *VIPEquinixMetal `yaml:"equinixMetal,omitempty"`
	Hcloud       *VIPHCloud       `yaml:"hcloud,omitempty"`
}

// DeviceWireguard …
type DeviceWireguard struct {
	PrivateKey   string                `yaml:"privateKey,omitempty"`
	ListenPort   int                   `yaml:"listenPort,omitempty"`
	FirewallMark int                   `yaml:"firewallMark,omitempty"`
	Peers        []DeviceWireguardPeer `yaml:"peers,omitempty"`
}

// DeviceWireguardPeer …
type DeviceWireguardPeer struct {
	PublicKey                   string   `yaml:"publicKey,omitempty"`
	Endpoint                    string   `yaml:"endpoint,omitempty"`
	PersistentKeepaliveInterval Duration `yaml:"persistentKeepaliveInterval,omitempty"`
	AllowedIPs                  []string `yaml:"allowedIPs,omitempty"`
}

// DiscoveryRegistries …
type DiscoveryRegistries struct {
	Kubernetes *DiscoveryKubernetes `yaml:"kubernetes,omitempty"`
	Service    *DiscoveryService    `yaml:"service,omitempty"`
}

// Encryption …
type Encryption struct {
	Provider  string          `yaml:"provider,omitempty"`
	Keys      []EncryptionKey `yaml:"keys,omitempty"`
	Cipher    string          `yaml:"cipher,omitempty"`
	KeySize   int             `yaml:"keySize,omitempty"`
	BlockSize int             `yaml:"blockSize,omitempty"`
	Options   []string        `yaml:"options,omitempty"`
}

// EncryptionKey …
type EncryptionKey struct {
	Static *EncryptionKeyStatic `yaml:"static,omitempty"`
	NodeID *EncryptionKeyNodeID `yaml:"nodeID,omitempty"`
	KMS    *EncryptionKeyKMS    `yaml:"kms,omitempty"`
	Slot   int                  `yaml:"slot,omitempty"`
	TPM    *EncryptionKeyTPM    `yaml:"tpm,omitempty"`
}

// EncryptionKeyKMS …
type EncryptionKeyKMS struct {
	Endpoint string `yaml:"endpoint,omitempty"`
}

// EncryptionKeyNodeID …
type EncryptionKeyNodeID struct {
}

// EncryptionKeyStatic …
type EncryptionKeyStatic struct {
	Passphrase string `yaml:"passphrase,omitempty"`
}

// EncryptionKeyTPM …
type EncryptionKeyTPM struct {
	CheckSecurebootStatusOnEnroll *bool `yaml:"checkSecurebootStatusOnEnroll,omitempty"`
}

// Etcd …
type Etcd struct {
	Image             string             `yaml:"image,omitempty"`
	CA                *CertificateAndKey `yaml:"ca,omitempty"`
	ExtraArgs         map[string]string  `yaml:"extraArgs,omitempty"`
	AdvertisedSubnets []string           `yaml:"advertisedSubnets,omitempty"`
	ListenSubnets     []string           `yaml:"listenSubnets,omitempty"`
}

// ExternalCloudProvider …
type ExternalCloudProvider struct {
	Enabled   *bool    `yaml:"enabled,omitempty"`
	Manifests []string `yaml:"manifests,omitempty"`
}

// ExtraHost …
type ExtraHost struct {
	IP      string   `yaml:"ip,omitempty"`
	Aliases []string `yaml:"aliases,omitempty"`
}

// ExtraMount …
type ExtraMount struct {
	Destination string           `yaml:"destination,omitempty"`
	Type        string           `yaml:"type,omitempty"`
	Source      string           `yaml:"source,omitempty"`
	Options     []string         `yaml:"options,omitempty"`
	UidMappings []LinuxIDMapping `yaml:"uidMappings,omitempty"`
	GidMappings []LinuxIDMapping `yaml:"gidMappings,omitempty"`
}

// Features …
type Features struct {
	RBAC                     *bool                     `yaml:"rbac,omitempty"`
	StableHostname           *bool                     `yaml:"stableHostname,omitempty"`
	KubernetesTalosAPIAccess *KubernetesTalosAPIAccess `yaml:"kubernetesTalosAPIAccess,omitempty"`
	ApidCheckExtKeyUsage     *bool                     `yaml:"apidCheckExtKeyUsage,omitempty"`
	DiskQuotaSupport         *bool                     `yaml:"diskQuotaSupport,omitempty"`
	KubePrism                *KubePrism                `yaml:"kubePrism,omitempty"`
	HostDNS                  *HostDNS                  `yaml:"hostDNS,omitempty"`
	ImageCache               *ImageCache               `yaml:"imageCache,omitempty"`
	NodeAddressSortAlgorithm string                    `yaml:"nodeAddressSortAlgorithm,omitempty"`
}

// FlannelCNI …
type FlannelCNI struct {
	ExtraArgs []string `yaml:"extraArgs,omitempty"`
}

// HostDNS …
type HostDNS struct {
	Enabled              *bool `yaml:"enabled,omitempty"`
	ForwardKubeDNSToHost *bool `yaml:"forwardKubeDNSToHost,omitempty"`
	ResolveMemberNames   *bool `yaml:"resolveMemberNames,omitempty"`
}

// ImageCache …
type ImageCache struct {
	LocalEnabled *bool `yaml:"localEnabled,omitempty"`
}

// Install …
type Install struct {
	Disk              string               `yaml:"disk,omitempty"`
	DiskSelector      *InstallDiskSelector `yaml:"diskSelector,omitempty"`
	ExtraKernelArgs   []string             `yaml:"extraKernelArgs,omitempty"`
	Image             string               `yaml:"image,omitempty"`
	Wipe              *bool                `yaml:"wipe,omitempty"`
	LegacyBIOSSupport *bool                `yaml:"legacyBIOSSupport,omitempty"`
}

// InstallDiskSelector …
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
}

// Kernel …
type Kernel struct {
	Modules []KernelModule `yaml:"modules,omitempty"`
}

// KernelModule …
type KernelModule struct {
	Name       string   `yaml:"name,omitempty"`
	Parameters []string `yaml:"parameters,omitempty"`
}

// KubePrism …
type KubePrism struct {
	Enabled *bool `yaml:"enabled,omitempty"`
	Port    int   `yaml:"port,omitempty"`
}

// KubeSpanFilters …
type KubeSpanFilters struct {
	Endpoints []string `yaml:"endpoints,omitempty"`
}

// Kubelet …
type Kubelet struct {
	Image                               string            `yaml:"image,omitempty"`
	ClusterDNS                          []string          `yaml:"clusterDNS,omitempty"`
	ExtraArgs                           map[string]string `yaml:"extraArgs,omitempty"`
	ExtraMounts                         []ExtraMount      `yaml:"extraMounts,omitempty"`
	ExtraConfig                         map[string]any    `yaml:"extraConfig,omitempty"`
	CredentialProviderConfig            map[string]any    `yaml:"credentialProviderConfig,omitempty"`
	DefaultRuntimeSeccompProfileEnabled *bool             `yaml:"defaultRuntimeSeccompProfileEnabled,omitempty"`
	RegisterWithFQDN                    *bool             `yaml:"registerWithFQDN,omitempty"`
	NodeIP                              *KubeletNodeIP    `yaml:"nodeIP,omitempty"`
	SkipNodeRegistration                *bool             `yaml:"skipNodeRegistration,omitempty"`
	DisableManifestsDirectory           *bool             `yaml:"disableManifestsDirectory,omitempty"`
}

// KubeletNodeIP …
type KubeletNodeIP struct {
	ValidSubnets []string `yaml:"validSubnets,omitempty"`
}

// KubernetesTalosAPIAccess …
type KubernetesTalosAPIAccess struct {
	Enabled                     *bool    `yaml:"enabled,omitempty"`
	AllowedRoles                []string `yaml:"allowedRoles,omitempty"`
	AllowedKubernetesNamespaces []string `yaml:"allowedKubernetesNamespaces,omitempty"`
}

// LinuxIDMapping …
type LinuxIDMapping struct {
	ContainerID int `yaml:"containerID,omitempty"`
	HostID      int `yaml:"hostID,omitempty"`
	Size        int `yaml:"size,omitempty"`
}

// Logging …
type Logging struct {
	Destinations []LoggingDestination `yaml:"destinations,omitempty"`
}

// LoggingDestination …
type LoggingDestination struct {
	Endpoint  string            `yaml:"endpoint,omitempty"`
	Format    string            `yaml:"format,omitempty"`
	ExtraTags map[string]string `yaml:"extraTags,omitempty"`
}

// MachineControlPlane …
type MachineControlPlane struct {
	ControllerManager *MachineControllerManager `yaml:"controllerManager,omitempty"`
	Scheduler         *MachineScheduler         `yaml:"scheduler,omitempty"`
}

// MachineControllerManager …
type MachineControllerManager struct {
	Disabled *bool `yaml:"disabled,omitempty"`
}

// MachineFile …
type MachineFile struct {
	Content     string   `yaml:"content,omitempty"`
	Permissions FileMode `yaml:"permissions,omitempty"`
	Path        string   `yaml:"path,omitempty"`
	Op          string   `yaml:"op,omitempty"`
}

// MachineScheduler …
type MachineScheduler struct {
	Disabled *bool `yaml:"disabled,omitempty"`
}

// MachineSeccompProfile …
type MachineSeccompProfile struct {
	Name  string         `yaml:"name,omitempty"`
	Value map[string]any `yaml:"value,omitempty"`
}

// Network …
type Network struct {
	Hostname            string      `yaml:"hostname,omitempty"`
	Interfaces          []Device    `yaml:"interfaces,omitempty"`
	Nameservers         []string    `yaml:"nameservers,omitempty"`
	SearchDomains       []string    `yaml:"searchDomains,omitempty"`
	ExtraHostEntries    []ExtraHost `yaml:"extraHostEntries,omitempty"`
	Kubespan            *KubeSpan   `yaml:"kubespan,omitempty"`
	DisableSearchDomain *bool       `yaml:"disableSearchDomain,omitempty"`
}

// NetworkDeviceSelector …
type NetworkDeviceSelector struct {
	BusPath       string `yaml:"busPath,omitempty"`
	HardwareAddr  string `yaml:"hardwareAddr,omitempty"`
	PermanentAddr string `yaml:"permanentAddr,omitempty"`
	PCIID         string `yaml:"pciID,omitempty"`
	Driver        string `yaml:"driver,omitempty"`
	Physical      *bool  `yaml:"physical,omitempty"`
}

// KubeSpan …
type KubeSpan struct {
	Enabled                     *bool            `yaml:"enabled,omitempty"`
	AdvertiseKubernetesNetworks *bool            `yaml:"advertiseKubernetesNetworks,omitempty"`
	AllowDownPeerBypass         *bool            `yaml:"allowDownPeerBypass,omitempty"`
	HarvestExtraEndpoints       *bool            `yaml:"harvestExtraEndpoints,omitempty"`
	MTU                         int              `yaml:"mtu,omitempty"`
	Filters                     *KubeSpanFilters `yaml:"filters,omitempty"`
}

// Proxy …
type Proxy struct {
	Disabled  *bool             `yaml:"disabled,omitempty"`
	Image     string            `yaml:"image,omitempty"`
	Mode      string            `yaml:"mode,omitempty"`
	ExtraArgs map[string]string `yaml:"extraArgs,omitempty"`
}

// Registries …
type Registries struct {
	Mirrors map[string]RegistryMirror `yaml:"mirrors,omitempty"`
	Config  map[string]Registry       `yaml:"config,omitempty"`
}

// RegistryAuth …
type RegistryAuth struct {
	Username      string `yaml:"username,omitempty"`
	Password      string `yaml:"password,omitempty"`
	Auth          string `yaml:"auth,omitempty"`
	IdentityToken string `yaml:"identityToken,omitempty"`
}

// Registry …
type Registry struct {
	TLS  *RegistryTLS  `yaml:"tls,omitempty"`
	Auth *RegistryAuth `yaml:"auth,omitempty"`
}

// DiscoveryKubernetes …
type DiscoveryKubernetes struct {
	Disabled *bool `yaml:"disabled,omitempty"`
}

// RegistryMirror …
type RegistryMirror struct {
	Endpoints    []string `yaml:"endpoints,omitempty"`
	OverridePath *bool    `yaml:"overridePath,omitempty"`
	SkipFallback *bool    `yaml:"skipFallback,omitempty"`
}

// DiscoveryService …
type DiscoveryService struct {
	Disabled *bool  `yaml:"disabled,omitempty"`
	Endpoint string `yaml:"endpoint,omitempty"`
}

// RegistryTLS …
type RegistryTLS struct {
	ClientIdentity     *CertificateAndKey `yaml:"clientIdentity,omitempty"`
	CA                 Base64             `yaml:"ca,omitempty"`
	InsecureSkipVerify *bool              `yaml:"insecureSkipVerify,omitempty"`
}

// Resources …
type Resources struct {
	Requests map[string]any `yaml:"requests,omitempty"`
	Limits   map[string]any `yaml:"limits,omitempty"`
}

// Route …
type Route struct {
	Network string `yaml:"network,omitempty"`
	Gateway string `yaml:"gateway,omitempty"`
	Source  string `yaml:"source,omitempty"`
	Metric  int    `yaml:"metric,omitempty"`
	MTU     int    `yaml:"mtu,omitempty"`
}

// STP …
type STP struct {
	Enabled *bool `yaml:"enabled,omitempty"`
}

// Scheduler …
type Scheduler struct {
	Image        string            `yaml:"image,omitempty"`
	ExtraArgs    map[string]string `yaml:"extraArgs,omitempty"`
	ExtraVolumes []VolumeMount     `yaml:"extraVolumes,omitempty"`
	Env          map[string]string `yaml:"env,omitempty"`
	Resources    map[string]any    `yaml:"resources,omitempty"`
	Config       map[string]any    `yaml:"config,omitempty"`
}

// SystemDiskEncryption …
type SystemDiskEncryption struct {
	State     *Encryption `yaml:"state,omitempty"`
	Ephemeral *Encryption `yaml:"ephemeral,omitempty"`
}

// Time …
type Time struct {
	Disabled    *bool    `yaml:"disabled,omitempty"`
	Servers     []string `yaml:"servers,omitempty"`
	BootTimeout Duration `yaml:"bootTimeout,omitempty"`
}

// Udev …
type Udev struct {
	Rules []string `yaml:"rules,omitempty"`
}

// VIPEquinixMetal …
type VIPEquinixMetal struct {
	APIToken string `yaml:"apiToken,omitempty"`
}

// VIPHCloud …
type VIPHCloud struct {
	APIToken string `yaml:"apiToken,omitempty"`
}

// Vlan …
type Vlan struct {
	Addresses   []string     `yaml:"addresses,omitempty"`
	Routes      []Route      `yaml:"routes,omitempty"`
	DHCP        *bool        `yaml:"dhcp,omitempty"`
	VlanID      int          `yaml:"vlanId,omitempty"`
	MTU         int          `yaml:"mtu,omitempty"`
	VIP         *DeviceVIP   `yaml:"vip,omitempty"`
	DHCPOptions *DHCPOptions `yaml:"dhcpOptions,omitempty"`
}

// VolumeMount …
type VolumeMount struct {
	HostPath  string `yaml:"hostPath,omitempty"`
	MountPath string `yaml:"mountPath,omitempty"`
	Readonly  *bool  `yaml:"readonly,omitempty"`
}
