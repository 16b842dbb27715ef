package health

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// object is as much of an object of Kubernetes as is looked at.
type object struct {
	Metadata struct {
		Name        string            `json:"name"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Unschedulable        bool       `json:"unschedulable"`
		NodeName             string     `json:"nodeName"`
		Replicas             *int       `json:"replicas"`
		HolderIdentity       string     `json:"holderIdentity"`
		RenewTime            *time.Time `json:"renewTime"`
		LeaseDurationSeconds int        `json:"leaseDurationSeconds"`
	} `json:"spec"`
	Status struct {
		Phase                  string `json:"phase"`
		ReadyReplicas          int    `json:"readyReplicas"`
		NumberReady            int    `json:"numberReady"`
		DesiredNumberScheduled int    `json:"desiredNumberScheduled"`
		Conditions             []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

type objects struct {
	Items []object `json:"items"`
}

// is says whether a condition is true, and what it says if not.
func (o object) is(condition string) (bool, string) {
	for _, c := range o.Status.Conditions {
		if c.Type == condition {
			return c.Status == "True", c.Message
		}
	}
	return false, ""
}

const nodesPath = "/api/v1/nodes"

// reported wants the node's own Node object to exist.
func (c *Cluster) reported(ctx context.Context, n Node) error {
	var spec struct {
		Nodename string `yaml:"nodename"`
		Skip     bool   `yaml:"skipNodeRegistration"`
	}
	found, err := n.get(ctx, "k8s", "Nodenames.kubernetes.talos.dev", "nodename", &spec)
	if err != nil {
		return err
	}
	if spec.Skip {
		return nil
	}
	if !found || spec.Nodename == "" {
		return errors.New("it has no name for Kubernetes yet")
	}
	var list objects
	if err := c.Kubernetes(ctx, nodesPath, &list); err != nil {
		return err
	}
	if !slices.ContainsFunc(list.Items, func(o object) bool { return o.Metadata.Name == spec.Nodename }) {
		return fmt.Errorf("there is no node %s in Kubernetes yet", spec.Nodename)
	}
	return nil
}

// staticPods wants the three components on a control plane node.
func (c *Cluster) staticPods(ctx context.Context, n Node) error {
	specs, err := n.list(ctx, "k8s", "StaticPodStatuses.kubernetes.talos.dev")
	if err != nil {
		return err
	}
	var running []string
	for id := range specs {
		running = append(running, id)
	}
	for _, component := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		if !slices.ContainsFunc(running, func(id string) bool { return strings.HasPrefix(id, "kube-system/"+component) }) {
			return fmt.Errorf("%s is not there yet", component)
		}
	}
	var list objects
	if err := c.Kubernetes(ctx, "/api/v1/namespaces/kube-system/pods?labelSelector="+url.QueryEscape("tier=control-plane"), &list); err != nil {
		return err
	}
	for _, p := range list.Items {
		if !slices.Contains(running, "kube-system/"+p.Metadata.Name) {
			continue
		}
		if ready, why := p.is("Ready"); !ready {
			return fmt.Errorf("pod %s is %s and not Ready%s", p.Metadata.Name, p.Status.Phase, because(why))
		}
	}
	return nil
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// components wants the API server ready, and a leader of each of the others.
func (c *Cluster) components(ctx context.Context) error {
	if err := c.Kubernetes(ctx, "/readyz", nil); err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		var lease object
		if err := c.Kubernetes(ctx, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/"+name, &lease); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := led(lease, time.Now()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// led says whether somebody holds a lease and renews it.
func led(lease object, now time.Time) error {
	s := lease.Spec
	if s.HolderIdentity == "" || s.RenewTime == nil {
		return errors.New("nobody leads")
	}
	if age := now.Sub(*s.RenewTime); age > 2*time.Duration(s.LeaseDurationSeconds)*time.Second {
		return fmt.Errorf("its leader %s was last seen %v ago", s.HolderIdentity, age.Round(time.Second))
	}
	return nil
}

func (c *Cluster) eachNode(ctx context.Context, well func(object) error) error {
	var list objects
	if err := c.Kubernetes(ctx, nodesPath, &list); err != nil {
		return err
	}
	if len(list.Items) == 0 {
		return errors.New("no node has registered yet")
	}
	for _, o := range list.Items {
		if err := well(o); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) nodesReady(ctx context.Context) error {
	if c.NoNetwork {
		return skip("the configuration leaves the pod network to you: nodes are Ready when it is there")
	}
	return c.eachNode(ctx, func(o object) error {
		if ready, why := o.is("Ready"); !ready {
			return fmt.Errorf("node %s is not Ready%s", o.Metadata.Name, because(why))
		}
		return nil
	})
}

func (c *Cluster) schedulable(ctx context.Context) error {
	return c.eachNode(ctx, func(o object) error {
		if o.Spec.Unschedulable {
			return fmt.Errorf("node %s is cordoned", o.Metadata.Name)
		}
		return nil
	})
}

func (c *Cluster) proxyReady(ctx context.Context) error {
	if c.NoProxy {
		return skip("the configuration leaves it out")
	}
	var set object
	if err := c.Kubernetes(ctx, "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy", &set); err != nil {
		return c.lacking(err)
	}
	if s := set.Status; s.DesiredNumberScheduled == 0 || s.NumberReady < s.DesiredNumberScheduled {
		return fmt.Errorf("%d of %d pods are Ready%s", s.NumberReady, s.DesiredNumberScheduled, c.notReady(ctx, "k8s-app=kube-proxy"))
	}
	return nil
}

func (c *Cluster) dnsReady(ctx context.Context) error {
	if c.NoDNS {
		return skip("the configuration leaves it out")
	}
	var deployment object
	if err := c.Kubernetes(ctx, "/apis/apps/v1/namespaces/kube-system/deployments/coredns", &deployment); err != nil {
		return c.lacking(err)
	}
	want := 1
	if deployment.Spec.Replicas != nil {
		want = *deployment.Spec.Replicas
	}
	if ready := deployment.Status.ReadyReplicas; ready < want {
		return fmt.Errorf("%d of %d pods are Ready%s", ready, want, c.notReady(ctx, "k8s-app=kube-dns"))
	}
	return nil
}

func (c *Cluster) lacking(err error) error {
	if c.MayLack && errors.Is(err, errNotFound) {
		return skip("there is none")
	}
	return err
}

// notReady names the first pod that is not Ready, and why.
func (c *Cluster) notReady(ctx context.Context, labels string) string {
	var list objects
	if err := c.Kubernetes(ctx, "/api/v1/namespaces/kube-system/pods?labelSelector="+url.QueryEscape(labels), &list); err != nil {
		return ""
	}
	for _, p := range list.Items {
		if ready, why := p.is("Ready"); !ready {
			return fmt.Sprintf("; pod %s is %s%s", p.Metadata.Name, p.Status.Phase, because(why))
		}
	}
	return ""
}

// hosts are those of URLs.
func hosts(urls []string) []string {
	var out []string
	for _, text := range urls {
		if u, err := url.Parse(text); err == nil {
			out = append(out, u.Hostname())
		}
	}
	return out
}
