package status

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"talos/internal/resources/cluster"
	"talos/internal/resources/k8s"
	"talos/internal/resources/network"
	"talos/internal/resources/runtime"
	"talos/internal/resources/timesync"
	"talos/internal/resources/v1alpha1"
)

// ready is a control plane node on which all is well.
func ready() Facts {
	f := Facts{
		Type:     cluster.TypeControlPlane,
		Services: map[string]v1alpha1.ServiceSpec{},
		Time:     &timesync.TimeStatusSpec{Synced: true},
		Network:  &network.NetworkStatusSpec{AddressReady: true, HostnameReady: true},
		Node:     &k8s.NodeStatusSpec{NodeReady: true},
	}
	for _, id := range Required(f.Type) {
		f.Services[id] = v1alpha1.ServiceSpec{Running: true, Healthy: true}
	}
	return f
}

// waiting is the same node without a configuration, and without anything that
// comes of one.
func waiting(f Facts) Facts {
	return Facts{Type: cluster.TypeUnknown, Services: f.Services, Network: f.Network, Maintenance: true}
}

func TestUnmet(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Facts)
		want   []runtime.UnmetCondition
	}{
		{"all is well", func(*Facts) {}, nil},
		{"a daemon is down", func(f *Facts) { delete(f.Services, "networkd") }, []runtime.UnmetCondition{{Name: "services", Reason: "networkd is not running"}}},
		{"etcd is sick", func(f *Facts) { f.Services["etcd"] = v1alpha1.ServiceSpec{Running: true} }, []runtime.UnmetCondition{{Name: "services", Reason: "etcd is not healthy"}}},
		{"etcd was not checked", func(f *Facts) { f.Services["etcd"] = v1alpha1.ServiceSpec{Running: true, Unknown: true} }, []runtime.UnmetCondition{{Name: "services", Reason: "etcd has not been checked yet"}}},
		{"a worker needs no etcd", func(f *Facts) { f.Type = cluster.TypeWorker; delete(f.Services, "etcd") }, nil},
		{"node is not ready", func(f *Facts) { f.Node.NodeReady = false }, []runtime.UnmetCondition{{Name: "nodeReady", Reason: "the Kubernetes node is not Ready"}}},
		{"no address", func(f *Facts) { f.Network.AddressReady = false }, []runtime.UnmetCondition{{Name: "network", Reason: "the node has no address"}}},
		{"maintenance", func(f *Facts) { *f = waiting(*f) }, nil},
		{"maintenance without an address", func(f *Facts) { *f = waiting(*f); f.Network.AddressReady = false }, []runtime.UnmetCondition{{Name: "network", Reason: "the node has no address"}}},
		{"neither configured nor waiting", func(f *Facts) { *f = waiting(*f); f.Maintenance = false }, []runtime.UnmetCondition{
			{Name: "configuration", Reason: "no machine configuration has been applied"}, {Name: "time", Reason: "time is not in sync: timed has not reported yet"},
		}},
		{"no clock", func(f *Facts) { f.Time = nil }, []runtime.UnmetCondition{{Name: "time", Reason: "time is not in sync: timed has not reported yet"}}},
		{"no time server", func(f *Facts) { f.Time.Synced = false }, []runtime.UnmetCondition{{Name: "time", Reason: "time is not in sync: no time server is known"}}},
		{"a silent time server", func(f *Facts) { f.Time.Synced, f.TimeServers = false, []string{"10.5.0.1", "a.b"} }, []runtime.UnmetCondition{
			{Name: "time", Reason: "time is not in sync: no time server has given a usable answer yet, asked: 10.5.0.1, a.b"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := ready()
			c.change(&f)
			if diff := cmp.Diff(c.want, Unmet(f)); diff != "" {
				t.Errorf("Unmet (-want +got):\n%s", diff)
			}
		})
	}
}
