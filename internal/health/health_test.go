package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
)

// run runs one check and returns what was told.
func run(ctx context.Context, try func(context.Context) error) (told []string, err error) {
	err = Run(ctx, []Check{{"x", try}}, func(check, state string) error {
		told = append(told, check+": "+state)
		return nil
	})
	return told, err
}

func TestRunTellsEachReasonOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []error{errors.New("no"), errors.New("no"), errors.New("soon"), nil}
		told, err := run(t.Context(), func(context.Context) error {
			answer := answers[0]
			answers = answers[1:]
			return answer
		})
		if want := []string{"x: no", "x: soon", "x: OK"}; err != nil || !slices.Equal(told, want) {
			t.Errorf("told %q, %v; want %q", told, err, want)
		}
		if told, err := run(t.Context(), func(context.Context) error { return skip("not here") }); err != nil || !slices.Equal(told, []string{"x: SKIP (not here)"}) {
			t.Errorf("a check that does not apply: told %q, %v", told, err)
		}
	})
}

// TestRunGivesUp: the last reason is what the caller gets, also when a try is cut
// short by the end, and a try that hangs counts as failed.
func TestRunGivesUp(t *testing.T) {
	for name, try := range map[string]func(tries int, ctx context.Context) error{
		"hangs": func(_ int, ctx context.Context) error { <-ctx.Done(); return errors.New("the reason") },
		"fails": func(int, context.Context) error { return errors.New("the reason") },
		"cut short": func(n int, ctx context.Context) error {
			if n == 0 {
				return errors.New("the reason")
			}
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				tries := 0
				_, err := run(ctx, func(ctx context.Context) error { tries++; return try(tries-1, ctx) })
				var late *Error
				if !errors.As(err, &late) || err.Error() != "x: not in time: the reason" {
					t.Errorf("Run = %v, want the last reason", err)
				}
			})
		})
	}
}

// fake is a node's API that answers what it is made of.
type fake struct {
	machine.MachineServiceClient
	err      error
	tag      string
	services []*machine.ServiceInfo
	members  []*machine.EtcdMember
}

func (f *fake) Version(context.Context, *emptypb.Empty, ...grpc.CallOption) (*machine.VersionResponse, error) {
	return &machine.VersionResponse{Messages: []*machine.Version{{Version: &machine.VersionInfo{Tag: f.tag}}}}, f.err
}

func (f *fake) ServiceList(context.Context, *emptypb.Empty, ...grpc.CallOption) (*machine.ServiceListResponse, error) {
	return &machine.ServiceListResponse{Messages: []*machine.ServiceList{{Services: f.services}}}, f.err
}

func (f *fake) EtcdMemberList(context.Context, *machine.EtcdMemberListRequest, ...grpc.CallOption) (*machine.EtcdMemberListResponse, error) {
	return &machine.EtcdMemberListResponse{Messages: []*machine.EtcdMembers{{Members: f.members}}}, f.err
}

func clusterOf(nodes ...Node) *Cluster {
	return &Cluster{Nodes: func(context.Context) ([]Node, error) { return nodes, nil }}
}

func node(name string, f *fake) Node {
	return Node{Name: name, ControlPlane: strings.HasPrefix(name, "cp"), Machine: f, Addresses: []string{name + ".test"}}
}

func etcd(names ...string) (out []*machine.EtcdMember) {
	for _, name := range names {
		out = append(out, &machine.EtcdMember{Id: uint64(len(name)) + uint64(name[len(name)-1]), Hostname: name, PeerUrls: []string{"https://" + name + ".test:2380"}})
	}
	return out
}

// verdict is a check's outcome as text.
func verdict(err error) string {
	if err == nil {
		return "OK"
	}
	return err.Error()
}

func TestEachNodeIsNamed(t *testing.T) {
	good, bad := &fake{}, &fake{err: errors.New("rpc error: code = Unavailable desc = no route to host")}
	c := clusterOf(node("cp-1", good), node("w-1", bad), node("w-2", bad))
	if got, want := verdict(c.onEach(everyNode, answers)(t.Context())), "w-1: no route to host; w-2: no route to host"; got != want {
		t.Errorf("all = %q, want %q", got, want)
	}
	if got := verdict(c.onEach(controlPlane, answers)(t.Context())); got != "OK" {
		t.Errorf("control plane = %q, want OK", got)
	}
	if got := verdict(clusterOf().onEach(everyNode, answers)(t.Context())); got == "OK" {
		t.Error("a cluster without nodes is well")
	}
}

func TestServices(t *testing.T) {
	well := &machine.ServiceHealth{Healthy: true}
	for _, tt := range []struct {
		service *machine.ServiceInfo
		want    string
	}{
		{&machine.ServiceInfo{Id: "apid", State: "Running", Health: well}, "OK"},
		{&machine.ServiceInfo{Id: "apid", State: "Skipped"}, "OK"},
		{&machine.ServiceInfo{Id: "machined", State: "Running", Health: &machine.ServiceHealth{Unknown: true}}, "OK"},
		{&machine.ServiceInfo{Id: "apid", State: "Running", Health: &machine.ServiceHealth{Unknown: true}}, "apid has not been checked yet"},
		{&machine.ServiceInfo{Id: "apid", State: "Running", Health: &machine.ServiceHealth{LastMessage: "refused"}}, "apid is not healthy: refused"},
		{&machine.ServiceInfo{Id: "apid", State: "Waiting", Events: &machine.ServiceEvents{Events: []*machine.ServiceEvent{{Msg: "for bootstrap"}}}}, "apid is Waiting: for bootstrap"},
		{&machine.ServiceInfo{Id: "kubelet", State: "Failed"}, "no such service is known yet"},
	} {
		f := &fake{services: []*machine.ServiceInfo{tt.service}}
		if got := verdict(services(func(id string) bool { return id != "kubelet" })(t.Context(), node("w-1", f))); got != tt.want {
			t.Errorf("%v = %q, want %q", tt.service, got, tt.want)
		}
	}
}

func TestEtcd(t *testing.T) {
	learner := etcd("cp-1", "cp-2")
	learner[1].IsLearner = true
	unstarted := etcd("cp-1", "cp-2")
	unstarted[1].Hostname = ""
	for _, tt := range []struct {
		name                string
		first, second       []*machine.EtcdMember
		consistent, members string
	}{
		{"well", etcd("cp-1", "cp-2"), etcd("cp-2", "cp-1"), "OK", "OK"},
		{"split", etcd("cp-1"), etcd("cp-2"), "cp-1 lists cp-1=0000000000000035; cp-2 lists cp-2=0000000000000036", "cp-2 is no member"},
		{"one too many", etcd("cp-1", "cp-2", "cp-9"), etcd("cp-1", "cp-2", "cp-9"), "OK", "member cp-9 (000000000000003d) is none of the control plane nodes cp-1, cp-2"},
		{"learner", learner, learner, "OK", "cp-2 is still a learner"},
		{"unstarted", unstarted, unstarted, "member 0000000000000036 has not started", "OK"},
	} {
		c := clusterOf(node("cp-1", &fake{members: tt.first}), node("cp-2", &fake{members: tt.second}), node("w-1", &fake{err: errors.New("not asked")}))
		if got := verdict(c.etcdConsistent(t.Context())); got != tt.consistent {
			t.Errorf("%s: consistent = %q, want %q", tt.name, got, tt.consistent)
		}
		if got := verdict(c.etcdMembers(t.Context())); got != tt.members {
			t.Errorf("%s: members = %q, want %q", tt.name, got, tt.members)
		}
	}
}

func TestVersionsMayDiffer(t *testing.T) {
	c := clusterOf(node("cp-1", &fake{tag: "v2"}), node("w-1", &fake{tag: "v1"}))
	var reason skip
	if err := c.sameVersion(t.Context()); !errors.As(err, &reason) || err.Error() != "v1 on w-1; v2 on cp-1" {
		t.Errorf("two versions = %v, want them named and the check skipped", err)
	}
}

// kubernetes answers from texts by path.
func kubernetes(texts map[string]string) func(context.Context, string, any) error {
	return func(_ context.Context, path string, into any) error {
		path, _, _ = strings.Cut(path, "?")
		text, found := texts[path]
		if !found {
			return fmt.Errorf("%s not found", path)
		}
		if into == nil {
			return nil
		}
		return json.Unmarshal([]byte(text), into)
	}
}

func TestKubernetes(t *testing.T) {
	const (
		proxy  = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy"
		dns    = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
		pods   = "/api/v1/namespaces/kube-system/pods"
		ready  = `{"items": [{"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}]}`
		broken = `{"items": [{"metadata": {"name": "n"}, "spec": {"unschedulable": true}, "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False", "message": "why"}]}}]}`
	)
	for _, tt := range []struct {
		name  string
		check func(*Cluster) func(context.Context) error
		texts map[string]string
		want  string
	}{
		{"nodes", func(c *Cluster) func(context.Context) error { return c.nodesReady }, map[string]string{nodesPath: ready}, "OK"},
		{"nodes", func(c *Cluster) func(context.Context) error { return c.nodesReady }, map[string]string{nodesPath: broken}, "node n is not Ready: why"},
		{"no nodes", func(c *Cluster) func(context.Context) error { return c.nodesReady }, map[string]string{nodesPath: "{}"}, "no node has registered yet"},
		{"no API", func(c *Cluster) func(context.Context) error { return c.nodesReady }, nil, "/api/v1/nodes not found"},
		{"cordoned", func(c *Cluster) func(context.Context) error { return c.schedulable }, map[string]string{nodesPath: broken}, "node n is cordoned"},
		{"schedulable", func(c *Cluster) func(context.Context) error { return c.schedulable }, map[string]string{nodesPath: ready}, "OK"},
		{"proxy", func(c *Cluster) func(context.Context) error { return c.proxyReady }, map[string]string{proxy: `{"status": {"desiredNumberScheduled": 2, "numberReady": 2}}`}, "OK"},
		{"proxy", func(c *Cluster) func(context.Context) error { return c.proxyReady }, map[string]string{proxy: `{"status": {"desiredNumberScheduled": 2, "numberReady": 1}}`, pods: broken}, "1 of 2 pods are Ready; pod n is Pending: why"},
		{"dns", func(c *Cluster) func(context.Context) error { return c.dnsReady }, map[string]string{dns: `{"spec": {"replicas": 2}, "status": {"readyReplicas": 2}}`}, "OK"},
		{"dns", func(c *Cluster) func(context.Context) error { return c.dnsReady }, map[string]string{dns: `{"spec": {"replicas": 2}, "status": {}}`}, "0 of 2 pods are Ready"},
		{"no leader", func(c *Cluster) func(context.Context) error { return c.components }, map[string]string{"/readyz": "", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager": "{}"}, "kube-controller-manager: nobody leads"},
	} {
		c := clusterOf()
		c.Kubernetes = kubernetes(tt.texts)
		if got := verdict(tt.check(c)(t.Context())); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestLed(t *testing.T) {
	now := time.Now()
	lease := object{}
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = "cp-1", 15
	for age, want := range map[time.Duration]string{time.Second: "OK", time.Minute: "its leader cp-1 was last seen 1m0s ago"} {
		at := now.Add(-age)
		lease.Spec.RenewTime = &at
		if got := verdict(led(lease, now)); got != want {
			t.Errorf("renewed %v ago: %q, want %q", age, got, want)
		}
	}
}

// TestLeftOut: what the configuration leaves out is not waited for.
func TestLeftOut(t *testing.T) {
	c := &Cluster{NoProxy: true, NoDNS: true, NoNetwork: true, Kubernetes: kubernetes(nil)}
	for name, check := range map[string]func(context.Context) error{"proxy": c.proxyReady, "dns": c.dnsReady, "nodes": c.nodesReady} {
		var reason skip
		if err := check(t.Context()); !errors.As(err, &reason) {
			t.Errorf("%s = %v, want it skipped", name, err)
		}
	}
}

// TestOrder: users read the checks from top to bottom; the order is a promise.
func TestOrder(t *testing.T) {
	var got []string
	for _, c := range clusterOf().Checks() {
		got = append(got, c.Name)
	}
	want := []string{
		"apid to answer on all nodes", "all nodes to have enough memory", "all nodes to have enough disk space", "time to be in sync on all nodes",
		"the system's services to be healthy on all nodes", "etcd to be healthy on all control plane nodes", "etcd members to be consistent across nodes",
		"etcd members to be the control plane nodes", "kubelet to be healthy on all nodes", "all nodes to have reported to Kubernetes",
		"the control plane's static pods to run", "the control plane's components to be ready", "all Kubernetes nodes to be Ready",
		"all nodes to have finished their boot", "no diagnostics on any node", "kube-proxy to be ready", "coredns to be ready",
		"all Kubernetes nodes to be schedulable", "all nodes to run the same version",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}
