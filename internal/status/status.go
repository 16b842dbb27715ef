// Package status says how the machine as a whole is: its stage, whether it is
// ready, and if not, what is missing. It reads what every other package
// reports and decides; it measures nothing itself.
package status

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"

	"talos/internal/reconcile"
	"talos/internal/resources/cluster"
	"talos/internal/resources/config"
	"talos/internal/resources/k8s"
	"talos/internal/resources/network"
	"talos/internal/resources/runtime"
	"talos/internal/resources/timesync"
	"talos/internal/resources/v1alpha1"
	"talos/internal/version"
)

// MachineID and VersionID are the ids of what this package makes.
const (
	MachineID = "machine"
	VersionID = "version"
)

// Machine keeps the MachineStatus. Sequences tell it the stage; it is safe for
// concurrent use.
type Machine struct {
	kick chan struct{}

	mu    sync.Mutex // guards stage
	stage runtime.MachineStage
}

// New makes the keeper of a machine that boots.
func New() *Machine {
	return &Machine{kick: make(chan struct{}, 1), stage: runtime.StageBooting}
}

// SetStage records where the machine is in its life.
func (m *Machine) SetStage(stage runtime.MachineStage) {
	m.mu.Lock()
	m.stage = stage
	m.mu.Unlock()
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Stage is what SetStage said last.
func (m *Machine) Stage() runtime.MachineStage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stage
}

// Controller keeps the MachineStatus and the Version: with every change of what
// readiness depends on, and of the stage.
func (m *Machine) Controller(log *slog.Logger) controller.Controller {
	return &reconcile.Controller{
		ID: "runtime.MachineStatusController", Log: log, Ticks: m.kick, Step: m.step,
		In: []controller.Input{
			reconcile.Input[*v1alpha1.Service](), reconcile.Input[*config.MachineType](), reconcile.Input[*timesync.TimeStatus](),
			reconcile.Input[*network.TimeServerStatus](), reconcile.Input[*network.NetworkStatus](), reconcile.Input[*k8s.NodeStatus](), reconcile.Input[*runtime.MaintenanceServiceRequest](),
		},
		Out: []resource.Kind{reconcile.Kind[*runtime.MachineStatus](), reconcile.Kind[*runtime.Version]()},
	}
}

func (m *Machine) step(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	facts, err := observe(ctx, r)
	if err != nil {
		return err
	}
	stage := m.Stage()
	unmet := Unmet(facts)
	switch {
	case stage != runtime.StageBooting:
	case facts.Maintenance: // until it boots on, with a configuration
		stage = runtime.StageMaintenance
	case len(unmet) == 0:
		stage = runtime.StageRunning
		m.SetStage(stage)
	}
	if err := safe.WriterModify(ctx, r, runtime.NewVersion(VersionID), func(res *runtime.Version) error {
		res.TypedSpec().Name, res.TypedSpec().Version = version.Name, version.Tag
		return nil
	}); err != nil {
		return err
	}
	return safe.WriterModify(ctx, r, runtime.NewMachineStatus(MachineID), func(res *runtime.MachineStatus) error {
		res.TypedSpec().Stage = stage
		res.TypedSpec().Status = runtime.MachineStatusStatus{Ready: len(unmet) == 0, UnmetConditions: unmet}
		return nil
	})
}

// Facts are what readiness is decided by.
type Facts struct {
	Type     cluster.MachineType
	Services map[string]v1alpha1.ServiceSpec
	Time     *timesync.TimeStatusSpec
	Network  *network.NetworkStatusSpec
	Node     *k8s.NodeStatusSpec

	TimeServers []string
	Maintenance bool // it waits for its first configuration
}

// observe reads the facts; what is not there yet stays empty.
func observe(ctx context.Context, r controller.Reader) (Facts, error) {
	facts := Facts{Services: map[string]v1alpha1.ServiceSpec{}}
	services, err := safe.ReaderListAll[*v1alpha1.Service](ctx, r)
	if err != nil {
		return facts, err
	}
	for svc := range services.All() {
		facts.Services[svc.Metadata().ID()] = *svc.TypedSpec()
	}
	machineType, err := safe.ReaderGetByID[*config.MachineType](ctx, r, config.MachineTypeID)
	if err == nil {
		facts.Type = machineType.TypedSpec().Type
	} else if !state.IsNotFoundError(err) {
		return facts, err
	}
	times, err := safe.ReaderListAll[*timesync.TimeStatus](ctx, r)
	if err != nil {
		return facts, err
	}
	for t := range times.All() {
		facts.Time = t.TypedSpec()
	}
	servers, err := safe.ReaderListAll[*network.TimeServerStatus](ctx, r)
	if err != nil {
		return facts, err
	}
	for s := range servers.All() {
		facts.TimeServers = s.TypedSpec().TimeServers
	}
	networks, err := safe.ReaderListAll[*network.NetworkStatus](ctx, r)
	if err != nil {
		return facts, err
	}
	for n := range networks.All() {
		facts.Network = n.TypedSpec()
	}
	nodes, err := safe.ReaderListAll[*k8s.NodeStatus](ctx, r)
	if err != nil {
		return facts, err
	}
	for n := range nodes.All() {
		facts.Node = n.TypedSpec()
	}
	waits, err := safe.ReaderListAll[*runtime.MaintenanceServiceRequest](ctx, r)
	if err != nil {
		return facts, err
	}
	facts.Maintenance = waits.Len() > 0
	return facts, nil
}

// Required are the services that a machine of a type must run.
func Required(t cluster.MachineType) []string {
	required := []string{"apid", "containerd", "machined", "networkd", "routerd", "timed"}
	switch t {
	case cluster.TypeControlPlane, cluster.TypeInit:
		required = append(required, "cri", "etcd", "kubelet", "trustd")
	case cluster.TypeWorker:
		required = append(required, "cri", "kubelet")
	}
	return required
}

// timeless says why the clock is not right.
func (f Facts) timeless() string {
	switch {
	case f.Time == nil:
		return "timed has not reported yet"
	case len(f.TimeServers) == 0:
		return "no time server is known"
	}
	return "no time server has given a usable answer yet, asked: " + strings.Join(f.TimeServers, ", ")
}

// Unmet decides what is missing; nothing missing means ready. In maintenance mode
// that is to be reached.
func Unmet(f Facts) []runtime.UnmetCondition {
	var unmet []runtime.UnmetCondition
	add := func(name, reason string) { unmet = append(unmet, runtime.UnmetCondition{Name: name, Reason: reason}) }

	if f.Type == cluster.TypeUnknown && !f.Maintenance {
		add("configuration", "no machine configuration has been applied")
	}
	if !f.Maintenance && (f.Time == nil || !f.Time.Synced) {
		add("time", "time is not in sync: "+f.timeless())
	}
	switch {
	case f.Network == nil:
		add("network", "networkd has not reported yet")
	case !f.Network.AddressReady:
		add("network", "the node has no address")
	case !f.Network.HostnameReady:
		add("network", "the node has no host name")
	}
	for _, id := range Required(f.Type) {
		switch svc, known := f.Services[id]; {
		case !known || !svc.Running:
			add("services", id+" is not running")
		case !svc.Healthy && !svc.Unknown:
			add("services", id+" is not healthy")
		case svc.Unknown && id != "machined":
			add("services", id+" has not been checked yet")
		}
	}
	if f.Type != cluster.TypeUnknown {
		switch {
		case f.Node == nil:
			add("nodeReady", "the Kubernetes node has not been seen yet")
		case !f.Node.NodeReady:
			add("nodeReady", "the Kubernetes node is not Ready")
		}
	}
	slices.SortStableFunc(unmet, func(a, b runtime.UnmetCondition) int { return cmp.Compare(a.Name, b.Name) })
	return unmet
}
