package authz

import (
	"strings"
	"sync"
)

// Method is what the table knows of an RPC.
type Method struct {
	Roles       Roles // any of them suffices
	Stream      bool  // in either direction
	Wrapped     bool  // answers carry common.Metadata: `{repeated X messages = 1}` or, streamed, X
	Maintenance bool  // all that anybody may call while the node has no configuration
}

// rule gives a shape and roles to some methods of a service. Roles are
// letters: A admin, O operator, R reader, E etcd backup, M meta writer,
// V image verifier. A leading ~ of a method marks a stream, a trailing + what
// is offered in maintenance mode, to whoever reaches the node: what is needed to
// look at disks, links and logs and to apply a configuration. It writes nothing
// else: a stranger's value on META, or a wiped disk, would outlast the
// configuration that the owner applies; nor does it take the machine down.
type rule struct{ roles, methods string }

type service struct {
	name    string
	wrapped bool
	rules   []rule
}

var services = []service{
	{"machine.MachineService", true, []rule{
		{"AOR", `Containers Stats CPUInfo CPUFreqStats DiskStats LoadAvg Memory+ NetworkDeviceStats SystemStat Mounts
			Processes Hostname+ Version+ LogsContainers+ Netstat ServiceList+
			~DiskUsage ~List ~Dmesg+ ~Logs+ ~Events+ ~ImageList`},
		{"AO", `EtcdAlarmDisarm EtcdDefragment ImagePull Reboot Shutdown Restart ServiceStart ServiceStop ServiceRestart
			~PacketCapture`},
		{"AORE", `EtcdMemberList EtcdStatus EtcdAlarmList`},
		{"AOE", `~EtcdSnapshot`},
		{"AM", `MetaWrite MetaDelete`},
		{"A", `ApplyConfiguration+ Bootstrap EtcdForfeitLeadership EtcdLeaveCluster EtcdRemoveMemberByID
			EtcdDowngradeValidate EtcdDowngradeEnable EtcdDowngradeCancel GenerateClientConfiguration
			Reset Rollback Upgrade ~Copy ~EtcdRecover ~Kubeconfig ~Read`},
	}},
	{"machine.ImageService", false, []rule{{"AOR", "~List"}, {"AO", "~Pull"}, {"A", "~Import Remove"}, {"AORV", "Verify"}}},
	{"machine.LifecycleService", false, []rule{{"A", "~Install ~Upgrade"}}},
	{"machine.DebugService", false, []rule{{"A", "~ContainerRun"}}},
	{"machine.StorageService", false, []rule{{"AOR", "Statfs"}}},
	{"machine.LVMService", false, []rule{{"A", "LogicalVolumeRemove VolumeGroupRemove PhysicalVolumeRemove"}}},
	{"machine.MDService", false, []rule{{"A", "Destroy"}}},
	{"storage.StorageService", true, []rule{{"AOR", "Disks+"}, {"A", "BlockDeviceWipe"}}},
	{"cluster.ClusterService", true, []rule{{"AOR", "~HealthCheck"}}},
	{"talos.v1.IntegrityService", true, []rule{{"AOR", "~Verify"}}},
	{"talos.v1.RosterService", true, []rule{{"A", "Forget"}}},
	{"inspect.InspectService", true, []rule{{"AOR", "ControllerRuntimeDependencies"}}},
	{"time.TimeService", true, []rule{{"AOR", "Time TimeCheck"}}},
	{"network.NetworkService", true, []rule{{"AOR", "Routes+ Interfaces+"}}},
	{"talos.v1.ConfigurationService", true, []rule{{"AOR", "History"}, {"A", "Get Confirm Rollback"}}},
	// Health's items have no metadata: field 1 of theirs is a status.
	{"health.Health", false, []rule{{"AOR", "Check Ready ~Watch"}}},
	// Which types a reader may read is ResourceRule's decision; it denies
	// every write.
	{"cosi.resource.State", false, []rule{
		{"AOR", "Get+ ~List+ ~Watch+"}, {"A", "Create Update Destroy Teardown TeardownAndDestroy"},
	}},
}

var letters = map[rune]Role{
	'A': Admin, 'O': Operator, 'R': Reader, 'E': EtcdBackup, 'M': MetaWriter, 'V': ImageVerifier,
}

var table = sync.OnceValue(func() map[string]Method {
	methods := make(map[string]Method, 128)
	for _, s := range services {
		for _, r := range s.rules {
			var roles Roles
			for _, letter := range r.roles {
				roles |= bit(letters[letter])
			}
			for _, name := range strings.Fields(r.methods) {
				name, stream := strings.CutPrefix(name, "~")
				name, maintenance := strings.CutSuffix(name, "+")
				methods["/"+s.name+"/"+name] = Method{
					Roles: roles, Stream: stream, Wrapped: s.wrapped, Maintenance: maintenance,
				}
			}
		}
	}
	return methods
})

// Lookup returns what the table knows of a full method name.
func Lookup(method string) (Method, bool) {
	m, ok := table()[method]
	return m, ok
}
