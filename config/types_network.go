package config

// Network configures the machine's network. What is set here wins over DHCP and over the kernel's command line.
type Network struct {
	Hostname            string      `yaml:"hostname,omitempty"` // default from DHCP, else derived from the machine's identity
	Interfaces          []Device    `yaml:"interfaces,omitempty"`
	Nameservers         []string    `yaml:"nameservers,omitempty"`   // addresses; default from DHCP
	SearchDomains       []string    `yaml:"searchDomains,omitempty"` // default the domain of the host name
	ExtraHostEntries    []ExtraHost `yaml:"extraHostEntries,omitempty"`
	Kubespan            *KubeSpan   `yaml:"kubespan,omitempty"`
	DisableSearchDomain *bool       `yaml:"disableSearchDomain,omitempty"` // default false; true searches no default domain
}

// Bond joins links to one, as the kernel's bonding driver documents it.
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

// Bridge makes the link a bridge.
type Bridge struct {
	Interfaces []string    `yaml:"interfaces,omitempty"`
	STP        *STP        `yaml:"stp,omitempty"`
	Vlan       *BridgeVLAN `yaml:"vlan,omitempty"`
}

// BridgePort makes the link a port of a bridge.
type BridgePort struct {
	Master string `yaml:"master,omitempty"`
}

// BridgeVLAN configures VLANs on a bridge.
type BridgeVLAN struct {
	VlanFiltering *bool `yaml:"vlanFiltering,omitempty"`
}

// DHCPOptions configures DHCP on a link.
type DHCPOptions struct {
	RouteMetric int    `yaml:"routeMetric,omitempty"` // of routes that come by DHCP; 0 to 4294967295; default 1024
	IPv4        *bool  `yaml:"ipv4,omitempty"`        // default true
	IPv6        *bool  `yaml:"ipv6,omitempty"`
	DUIDv6      string `yaml:"duidv6,omitempty"`
}

// Device configures one link, named or selected by its hardware.
type Device struct {
	Interface      string                 `yaml:"interface,omitempty"` // name of the link; this or deviceSelector
	DeviceSelector *NetworkDeviceSelector `yaml:"deviceSelector,omitempty"`
	Addresses      []string               `yaml:"addresses,omitempty"` // with prefix, such as 10.5.0.2/24
	Routes         []Route                `yaml:"routes,omitempty"`
	Bond           *Bond                  `yaml:"bond,omitempty"`
	Bridge         *Bridge                `yaml:"bridge,omitempty"`
	BridgePort     *BridgePort            `yaml:"bridgePort,omitempty"`
	Vlans          []Vlan                 `yaml:"vlans,omitempty"`
	MTU            int                    `yaml:"mtu,omitempty"`    // 0 leaves it as it is; at most 65535
	DHCP           *bool                  `yaml:"dhcp,omitempty"`   // default false
	Ignore         *bool                  `yaml:"ignore,omitempty"` // default false; true leaves the link alone altogether
	Dummy          *bool                  `yaml:"dummy,omitempty"`
	DHCPOptions    *DHCPOptions           `yaml:"dhcpOptions,omitempty"`
	Wireguard      *DeviceWireguard       `yaml:"wireguard,omitempty"`
	VIP            *DeviceVIP             `yaml:"vip,omitempty"`
}

// DeviceVIP is an address that control plane nodes share.
type DeviceVIP struct {
	IP           string           `yaml:"ip,omitempty"`
	EquinixMetal *VIPEquinixMetal `yaml:"equinixMetal,omitempty"`
	Hcloud       *VIPHCloud       `yaml:"hcloud,omitempty"`
}

// DeviceWireguard makes the link a WireGuard tunnel.
type DeviceWireguard struct {
	PrivateKey   string                `yaml:"privateKey,omitempty"`
	ListenPort   int                   `yaml:"listenPort,omitempty"`
	FirewallMark int                   `yaml:"firewallMark,omitempty"`
	Peers        []DeviceWireguardPeer `yaml:"peers,omitempty"`
}

// DeviceWireguardPeer is the other end of a WireGuard tunnel.
type DeviceWireguardPeer struct {
	PublicKey                   string   `yaml:"publicKey,omitempty"`
	Endpoint                    string   `yaml:"endpoint,omitempty"`
	PersistentKeepaliveInterval Duration `yaml:"persistentKeepaliveInterval,omitempty"`
	AllowedIPs                  []string `yaml:"allowedIPs,omitempty"`
}

// ExtraHost is a line of /etc/hosts.
type ExtraHost struct {
	IP      string   `yaml:"ip,omitempty"`
	Aliases []string `yaml:"aliases,omitempty"`
}

// KubeSpanFilters chooses the addresses that KubeSpan announces.
type KubeSpanFilters struct {
	Endpoints []string `yaml:"endpoints,omitempty"`
}

// NetworkDeviceSelector chooses links by their hardware; all that is given must match. Patterns may have * and ?.
type NetworkDeviceSelector struct {
	BusPath       string `yaml:"busPath,omitempty"`
	HardwareAddr  string `yaml:"hardwareAddr,omitempty"`
	PermanentAddr string `yaml:"permanentAddr,omitempty"`
	PCIID         string `yaml:"pciID,omitempty"`
	Driver        string `yaml:"driver,omitempty"`
	Physical      *bool  `yaml:"physical,omitempty"`
}

// KubeSpan configures a WireGuard mesh between nodes.
type KubeSpan struct {
	Enabled                     *bool            `yaml:"enabled,omitempty"`
	AdvertiseKubernetesNetworks *bool            `yaml:"advertiseKubernetesNetworks,omitempty"`
	AllowDownPeerBypass         *bool            `yaml:"allowDownPeerBypass,omitempty"`
	HarvestExtraEndpoints       *bool            `yaml:"harvestExtraEndpoints,omitempty"`
	MTU                         int              `yaml:"mtu,omitempty"`
	Filters                     *KubeSpanFilters `yaml:"filters,omitempty"`
}

// Route is a route through a link. One of network and gateway must be given; without network it is the default route.
type Route struct {
	Network string `yaml:"network,omitempty"` // without host bits; default the default route of the gateway's family
	Gateway string `yaml:"gateway,omitempty"`
	Source  string `yaml:"source,omitempty"`
	Metric  int    `yaml:"metric,omitempty"` // 0 to 4294967295; default 1024
	MTU     int    `yaml:"mtu,omitempty"`    // 0 to 65535; default the link's
}

// STP configures the spanning tree of a bridge.
type STP struct {
	Enabled *bool `yaml:"enabled,omitempty"`
}

// VIPEquinixMetal moves a shared address over the provider's API.
type VIPEquinixMetal struct {
	APIToken string `yaml:"apiToken,omitempty"`
}

// VIPHCloud moves a shared address over the provider's API.
type VIPHCloud struct {
	APIToken string `yaml:"apiToken,omitempty"`
}

// Vlan is a VLAN on a link.
type Vlan struct {
	Addresses   []string     `yaml:"addresses,omitempty"`
	Routes      []Route      `yaml:"routes,omitempty"`
	DHCP        *bool        `yaml:"dhcp,omitempty"`
	VlanID      int          `yaml:"vlanId,omitempty"` // 1 to 4094
	MTU         int          `yaml:"mtu,omitempty"`
	VIP         *DeviceVIP   `yaml:"vip,omitempty"`
	DHCPOptions *DHCPOptions `yaml:"dhcpOptions,omitempty"`
}
