package machine

import (
	"context"
	"fmt"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"talos/api/cluster"
	"talos/config"
	"talos/internal/kube/api"
	"talos/internal/resources/runtime"
	"talos/internal/resources/secrets"
	"talos/internal/service"
)

const (
	healthInterval = 250 * time.Millisecond // between two tries of a check
	healthDefault  = 20 * time.Minute       // when the caller sets no limit
	healthOneTry   = 10 * time.Second       // a try that hangs is a failed try
)

// check is one thing that a healthy cluster has; nil means it has.
type check struct {
	name string
	try  func(context.Context) error
}

// HealthCheck goes through the checks in the order in which a cluster comes
// up, waits for each, and tells how it goes. It ends with the first that is
// not fulfilled in time, and with its last error.
func (s *Server) HealthCheck(req *cluster.HealthCheckRequest, stream grpc.ServerStreamingServer[cluster.HealthCheckProgress]) error {
	limit := healthDefault
	if req.GetWaitTimeout() != nil {
		limit = req.GetWaitTimeout().AsDuration()
	}
	ctx, cancel := context.WithTimeout(stream.Context(), limit)
	defer cancel()
	for _, c := range s.checks() {
		if err := runCheck(ctx, c, stream.Send); err != nil {
			return err
		}
	}
	return nil
}

// runCheck tries c until it is fulfilled, and reports each new reason once.
func runCheck(ctx context.Context, c check, send func(*cluster.HealthCheckProgress) error) error {
	last := ""
	for {
		tryCtx, cancel := context.WithTimeout(ctx, healthOneTry)
		err := c.try(tryCtx)
		cancel()
		message := "waiting for " + c.name + ": OK"
		if err != nil {
			message = "waiting for " + c.name + ": " + err.Error()
		}
		if message != last {
			last = message
			if err := send(&cluster.HealthCheckProgress{Message: message}); err != nil {
				return err
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return status.Errorf(codes.DeadlineExceeded, "%s: not in time: %v", c.name, err)
		case <-time.After(healthInterval):
		}
	}
}

// checks are what this node can tell of its cluster.
func (s *Server) checks() []check {
	list := []check{{"this node's services to be healthy", s.servicesHealthy}}
	cfg := s.Config.Active()
	if cfg == nil {
		return append(list, check{"a machine configuration", func(context.Context) error {
			return fmt.Errorf("none has been applied")
		}})
	}
	if cfg.Machine.Type == config.TypeWorker {
		return append(list, check{"this machine to be ready", s.machineReady})
	}
	list = append(list,
		check{"etcd to be healthy", s.etcdHealthy},
		check{"this machine to be ready", s.machineReady},
		check{"all Kubernetes nodes to be Ready", s.nodesReady},
		check{"the control plane's pods to be ready", s.podsReady("tier=control-plane")},
	)
	if cfg.Cluster.Proxy == nil || !config.Bool(cfg.Cluster.Proxy.Disabled, false) {
		list = append(list, check{"kube-proxy to be ready", s.podsReady("k8s-app=kube-proxy")})
	}
	if cfg.Cluster.CoreDNS == nil || !config.Bool(cfg.Cluster.CoreDNS.Disabled, false) {
		list = append(list, check{"coredns to be ready", s.podsReady("k8s-app=kube-dns")})
	}
	return list
}

func (s *Server) servicesHealthy(context.Context) error {
	for _, svc := range s.Services.List() {
		switch {
		case svc.State == "Skipped" || svc.State == "Finished":
		case svc.State != "Running":
			return fmt.Errorf("%s is %s%s", svc.ID, svc.State, reason(svc.Events))
		case !svc.Health.Healthy && svc.Health.Message != "":
			return fmt.Errorf("%s is not healthy: %s", svc.ID, svc.Health.Message)
		case !svc.Health.Healthy:
			return fmt.Errorf("%s has not been checked yet", svc.ID)
		}
	}
	return nil
}

func (s *Server) etcdHealthy(ctx context.Context) error {
	client, err := s.Etcd.Client(ctx)
	if err != nil {
		return err
	}
	members, err := client.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("list members: %w", err)
	}
	for _, m := range members.Members {
		if m.Name == "" {
			return fmt.Errorf("member %016x has not started", m.ID)
		}
	}
	return nil
}

func (s *Server) machineReady(ctx context.Context) error {
	res, err := safe.StateGetByID[*runtime.MachineStatus](ctx, s.State, "machine")
	if err != nil {
		return err
	}
	for _, unmet := range res.TypedSpec().Status.UnmetConditions {
		return fmt.Errorf("%s", unmet.Reason)
	}
	return nil
}

// kube talks to this node's API server as administrator.
func (s *Server) kube(ctx context.Context) (*api.Client, error) {
	res, err := safe.StateGetByID[*secrets.KubernetesSecrets](ctx, s.State, "k8s-secrets")
	if err != nil {
		return nil, err
	}
	return api.New([]byte(res.TypedSpec().LocalhostAdminKubeconfig))
}

func (s *Server) nodesReady(ctx context.Context) error {
	client, err := s.kube(ctx)
	if err != nil {
		return err
	}
	nodes, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(nodes.Items) == 0 {
		return fmt.Errorf("no node has registered yet")
	}
	for _, node := range nodes.Items {
		if !conditionTrue(node, "Ready") {
			return fmt.Errorf("node %s is not Ready", node.GetName())
		}
	}
	return nil
}

// podsReady wants at least one pod with the labels in kube-system, all Ready.
func (s *Server) podsReady(labels string) func(context.Context) error {
	return func(ctx context.Context) error {
		client, err := s.kube(ctx)
		if err != nil {
			return err
		}
		pods, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace("kube-system").
			List(ctx, metav1.ListOptions{LabelSelector: labels})
		if err != nil {
			return err
		}
		if len(pods.Items) == 0 {
			return fmt.Errorf("no pod with %s exists yet", labels)
		}
		for _, pod := range pods.Items {
			if !conditionTrue(pod, "Ready") {
				return fmt.Errorf("pod %s is not Ready", pod.GetName())
			}
		}
		return nil
	}
}

func conditionTrue(object unstructured.Unstructured, kind string) bool {
	conditions, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	if err != nil {
		return false
	}
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == kind {
			return m["status"] == "True"
		}
	}
	return false
}

// reason is the last thing that was said of a service.
func reason(events []service.Event) string {
	if len(events) == 0 || events[len(events)-1].Message == "" {
		return ""
	}
	return ": " + events[len(events)-1].Message
}
