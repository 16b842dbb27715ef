// Package layout says where things are on a node: folders, sockets, user ids.
// It is the one place where machined, the daemons, the image and the cluster
// supervisor agree on them. It does nothing.
package layout

// Folders. /run, /tmp and /system are tmpfs; the root is a read-only SquashFS.
const (
	StateDir     = "/system/state"      // STATE, persistent: configuration and node identity
	MetaDir      = "/system/meta"       // META, persistent: small facts that survive a wipe of STATE
	PlatformDir  = "/system/platform"   // what the platform hands in, read-only; container mode only
	EtcDir       = "/system/etc"        // targets of the image's symlinks /etc/{resolv.conf,hosts,hostname,machine-id}
	LogDir       = "/system/log"        // logs of services, bounded, where they can't be on disk
	BootLogDir   = "/var/log/boots"     // logs of services, a folder for each of the last boots
	SecretsDir   = "/system/secrets"    // keys and certificates of services, one folder per user of them
	RootBindDir  = "/system/rootfs"     // the image bound without what is mounted over it: root of our daemons
	OutputDir    = "/system/run/output" // pipes that services in containers print to
	EphemeralDir = "/var"               // EPHEMERAL, persistent until wiped
	MediumDir    = "/boot"              // what an installation needs, read-only; only where the machine booted from such a medium

	PodResolvConf = EtcDir + "/pod-resolv.conf" // what pods without the cluster's DNS get

	ConfigFile         = StateDir + "/config.yaml" // what the node boots with
	ConfigHistoryDir   = StateDir + "/config"      // that and the ones before it
	PlatformConfigFile = PlatformDir + "/config.yaml"
	RootDigestFile     = PlatformDir + "/rootfs.sha256" // of the image that the root is mounted from
	PowerFile          = MetaDir + "/power"             // "reboot" or "poweroff": what the node asked of the supervisor
	SandboxFile        = "/system/run/sandbox.pid"      // the process id of sandboxd, where workloads are kept apart
	WipeFile           = MetaDir + "/wipe"              // labels of what a reset has begun to empty
	IdentityFile       = StateDir + "/identity.key"     // what makes the node this node
	APICertificate     = StateDir + "/apid.pem"         // a worker's certificate with its key
	MembersFile        = StateDir + "/members.json"     // the cluster's nodes, as last seen

	EtcdDataDir     = "/var/lib/etcd"
	KubernetesDir   = "/etc/kubernetes" // tmpfs bound over the image's empty folder
	ManifestsDir    = KubernetesDir + "/manifests"
	KubeletDir      = "/var/lib/kubelet"
	CNIConfDir      = "/etc/cni/net.d" // writable, on EPHEMERAL
	CNIBinDir       = "/opt/cni/bin"   // writable, on EPHEMERAL; searched before CNISystemBinDir
	CNISystemBinDir = "/usr/lib/cni"   // in the image

	BuiltinModules = "/usr/lib/modules/modules.builtin" // in the image: which modules its kernel has built in
)

// Sockets. Each lies in a folder of its own so that a daemon's mounts show it
// only those that it may use; who calls is learnt from the kernel.
const (
	StoreSocket      = "/system/run/store/store.sock"           // machined: resource store, a view per uid
	MachineSocket    = "/system/run/machined/machine.sock"      // machined: API, for routerd alone
	RouterSocket     = "/system/run/routerd/routerd.sock"       // routerd: all APIs of this node, for apid alone
	NetworkSocket    = "/system/run/networkd/networkd.sock"     // networkd: API, for routerd alone
	TimeSocket       = "/system/run/timed/timed.sock"           // timed: API, for routerd alone
	SignerSocket     = "/system/run/signer/signer.sock"         // machined: signs for trustd alone
	ContainerdSocket = "/system/run/containerd/containerd.sock" // the OS's own containerd, namespace "system"
	CRISocket        = "/run/containerd/containerd.sock"        // Kubernetes's containerd: "k8s.io", and "system" for etcd and kubelet
)

// Ports.
const (
	APIPort   = 50000
	TrustPort = 50001
	KubePort  = 6443
)

// TrustName is in the certificates of every trustd, and no node can get it by
// asking: who speaks to trustd looks for it, whatever address it was reached by.
const TrustName = "trustd.control-plane.talos.internal"

// APIName is the same for the APIs of control plane nodes. Other nodes look for
// it when the node that they call is a control plane's: a certificate that trustd
// gave to somebody of that name, before the node was known, does not do.
const APIName = "api.control-plane.talos.internal"

// User ids; the group id is the same number.
const (
	APIUID       = 50
	RouterUID    = 51
	TrustUID     = 52
	NetworkUID   = 53
	TimeUID      = 54
	FetchUID     = 55
	EtcdUID      = 60
	APIServerUID = 61 // not nobody: a pod that is may not read our secrets
	ManagerUID   = 62
	SchedulerUID = 63
)

// Names of containerd namespaces.
const (
	SystemNamespace = "system"
	KubeNamespace   = "k8s.io"
)
