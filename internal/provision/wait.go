package provision

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"go.yaml.in/yaml/v3"

	"talos/client"
	"talos/client/talosconfig"
	"talos/internal/loop"
)

const (
	tellEvery   = 15 * time.Second // that a step still waits, and for what
	givesUp     = 4                // restarts of a node that nobody asked for
	bootstrapIn = 30 * time.Second
	askTime     = 2 * time.Second // of one question to one node
)

// WaitHealthy waits until the cluster works: the first node's API answers, etcd
// is bootstrapped, Kubernetes answers, every node says that it is healthy, and
// the system's pods run. It ends early when a node cannot stay up.
func (c *Cluster) WaitHealthy(ctx context.Context, progress func(step string)) error {
	kube, err := newKube(c.Kubeconfig())
	if err != nil {
		return err
	}
	defer kube.close()
	nodes := &nodesWait{cluster: c, kube: kube, progress: progress, clients: map[string]*client.Client{}, stages: map[string]stage{}}
	defer nodes.close()
	first := c.controlPlanes()[0]
	for _, step := range []struct {
		what  string
		check func(context.Context) error
	}{
		{"the API of " + first.Name, func(ctx context.Context) error { return c.apiAnswers(ctx, first) }},
		{"etcd", func(context.Context) error { return c.bootstrapped() }},
		{"Kubernetes", kube.ready},
		{"all nodes to be healthy", nodes.check},
		{"the system's pods", func(ctx context.Context) error { return kube.podsReady(ctx, c.CoreDNS) }},
	} {
		if err := c.await(ctx, step.what, step.check, progress); err != nil {
			return fmt.Errorf("wait for %s: %w", step.what, err)
		}
	}
	return nil
}

// errFinal wraps what waiting does not mend.
type errFinal struct{ error }

func (e errFinal) Unwrap() error { return e.error }

func (c *Cluster) await(ctx context.Context, what string, check func(context.Context) error, progress func(string)) error {
	report(progress, "waiting for %s", what)
	tell := time.Now().Add(tellEvery)
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		var final errFinal
		if errors.As(err, &final) {
			return err
		}
		if ctx.Err() == nil {
			last = err
		}
		if err := c.crashing(); err != nil {
			return errors.Join(err, last)
		}
		if time.Now().After(tell) {
			report(progress, "waiting for %s: %v", what, last)
			tell = time.Now().Add(tellEvery)
		}
		if !loop.Sleep(ctx, c.backend().pace()) {
			return fmt.Errorf("%w; last: %w", ctx.Err(), last)
		}
	}
}

// crashing says that waiting is of no use.
func (c *Cluster) crashing() error {
	s := c.dirs.readSupervisor()
	if !s.Process.Alive() {
		return fmt.Errorf("the supervisor ended, see %s", c.SupervisorLog())
	}
	for name, n := range s.Nodes {
		if n.Restarts >= givesUp {
			return fmt.Errorf("node %s ended %d times, see %s", name, n.Restarts, c.LogFile(name))
		}
	}
	return nil
}

// apiAnswers connects to a node as a client would, unless it cannot have its
// certificate yet.
func (c *Cluster) apiAnswers(ctx context.Context, n Node) error {
	if err := c.backend().configured(c, n); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	t, err := talosconfig.Load(c.Talosconfig())
	if err != nil {
		return errFinal{err}
	}
	access, err := t.Select(c.Name)
	if err != nil {
		return errFinal{err}
	}
	pair, err := access.Certificate()
	if err != nil {
		return errFinal{err}
	}
	roots, err := access.Authorities()
	if err != nil {
		return errFinal{err}
	}
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: time.Second},
		Config:    &tls.Config{Certificates: []tls.Certificate{*pair}, RootCAs: roots, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}},
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", n.apiAddress())
	if err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	return conn.Close()
}

// stage is how far a node has come.
type stage int

const (
	silent stage = iota
	answers
	registered
	ready
	healthy
)

// String says what a node has just reached.
func (s stage) String() string {
	return [...]string{"starts", "its API answers", "is registered in Kubernetes", "is Ready in Kubernetes", "is healthy"}[s]
}

// nodesWait follows the nodes on their way, and tells what each has reached.
type nodesWait struct {
	cluster  *Cluster
	kube     *kube
	progress func(string)
	clients  map[string]*client.Client
	stages   map[string]stage
}

func (w *nodesWait) close() {
	for _, c := range w.clients {
		c.Close()
	}
}

// check is nil when all nodes are healthy; the error has a reason for each that
// is not.
func (w *nodesWait) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, kubeTimeout)
	defer cancel()
	nodes, err := w.kube.nodes(ctx)
	if err != nil {
		return err
	}
	var reasons []string
	for _, n := range w.cluster.Nodes {
		if w.stages[n.Name] == healthy {
			continue
		}
		at, why := w.look(ctx, n, nodes)
		if at > w.stages[n.Name] {
			w.stages[n.Name] = at
			report(w.progress, "%s %v", n.Name, at)
		}
		if at != healthy {
			reasons = append(reasons, n.Name+": "+why)
		}
	}
	if len(reasons) > 0 {
		return errors.New(strings.Join(reasons, "; "))
	}
	return nil
}

// look says how far a node has come, and what it waits for.
func (w *nodesWait) look(ctx context.Context, n Node, nodes map[string][]condition) (stage, string) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conditions, known := nodes[n.Name]
	isReady, message := isReady(conditions)
	if !isReady && w.stages[n.Name] == silent { // a node that is silent is not asked much
		if err := w.cluster.apiAnswers(ctx, n); err != nil {
			return silent, "its API does not answer: " + err.Error()
		}
	}
	switch {
	case !known:
		return answers, "not registered in Kubernetes yet"
	case !isReady:
		return registered, message
	}
	if err := w.machineReady(ctx, n); err != nil {
		return ready, err.Error()
	}
	return healthy, ""
}

// machineReady asks a node whether all that it is for works.
func (w *nodesWait) machineReady(ctx context.Context, n Node) error {
	api := w.clients[n.Name]
	if api == nil {
		var err error
		if api, err = w.cluster.api(ctx, n); err != nil {
			return err
		}
		w.clients[n.Name] = api
	}
	reply, err := api.Resources.Get(ctx, &cosi.GetRequest{
		Namespace: "runtime", Type: "MachineStatuses.runtime.talos.dev", Id: "machine", Options: &cosi.GetOptions{},
	})
	if err != nil {
		return err
	}
	return machineStatus(reply.GetResource().GetSpec().GetYamlSpec())
}

// machineStatus reads the spec of a MachineStatus: nil is ready.
func machineStatus(spec string) error {
	var s struct {
		Stage  string
		Status struct {
			Ready           bool
			UnmetConditions []struct{ Name, Reason string } `yaml:"unmetConditions"`
		}
	}
	if err := yaml.Unmarshal([]byte(spec), &s); err != nil {
		return fmt.Errorf("decode the machine's status: %w", err)
	}
	if s.Status.Ready {
		return nil
	}
	var unmet []string
	for _, u := range s.Status.UnmetConditions {
		unmet = append(unmet, u.Name+" ("+u.Reason+")")
	}
	return fmt.Errorf("%s, waiting for %s", s.Stage, strings.Join(unmet, ", "))
}
