//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"talos/internal/kube/api"
)

// traffic is what the users of a cluster do meanwhile.
type traffic struct {
	mu       sync.Mutex // guards the fields below
	last     map[string]time.Time
	longest  map[string]time.Duration // without a success, by kind
	failed   map[string]error         // the last failure
	acked    []string                 // objects whose creation was acknowledged
	attempts int
}

// Kinds of traffic.
const (
	writes   = "writes to the Kubernetes API"
	requests = "requests to the Deployment"
)

// run starts writers and readers that end with t: one object after the other is
// written through the cluster's endpoint, and a Service is asked on a node's
// port. What failed is tried again, as clients do.
func startTraffic(t *testing.T, nodePort string) *traffic {
	t.Helper()
	tr := &traffic{last: map[string]time.Time{}, longest: map[string]time.Duration{}, failed: map[string]error{}}
	data, err := os.ReadFile(cluster.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.New(data)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for kind, once := range map[string]func(context.Context) error{
		writes:   func(ctx context.Context) error { return tr.write(ctx, client) },
		requests: func(context.Context) error { return get(nodePort, "web-") },
	} {
		tr.note(kind, nil)
		wg.Go(func() {
			for ctx.Err() == nil {
				limited, done := context.WithTimeout(ctx, 3*time.Second)
				err := once(limited)
				done()
				if ctx.Err() == nil {
					tr.note(kind, err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	return tr
}

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// write creates the next object. One that exists already was written by an
// attempt whose answer got lost.
func (tr *traffic) write(ctx context.Context, client *api.Client) error {
	tr.mu.Lock()
	name := fmt.Sprintf("written-%06d", len(tr.acked))
	tr.attempts++
	tr.mu.Unlock()
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "labels": map[string]any{"e2e": "written"}},
	}}
	_, err := client.Resource(configMaps).Namespace("default").Create(ctx, object, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.acked = append(tr.acked, name)
	return nil
}

func (tr *traffic) note(kind string, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	now := time.Now()
	if err != nil {
		tr.failed[kind] = err
		return
	}
	if last, ok := tr.last[kind]; ok {
		tr.longest[kind] = max(tr.longest[kind], now.Sub(last))
	}
	tr.last[kind] = now
}

// reset forgets the longest pauses so far.
func (tr *traffic) reset() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	clear(tr.longest)
}

// pauses are the longest times without a success since the last reset.
func (tr *traffic) pauses() (write, request time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	now := time.Now()
	return max(tr.longest[writes], now.Sub(tr.last[writes])), max(tr.longest[requests], now.Sub(tr.last[requests]))
}

// goesOn waits until both kinds have succeeded after now.
func (tr *traffic) goesOn(t *testing.T, limit time.Duration) {
	t.Helper()
	from := time.Now()
	eventually(t, limit, "traffic goes on", func() error {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for _, kind := range []string{writes, requests} {
			if !tr.last[kind].After(from) {
				return fmt.Errorf("no %s succeeded for %v: %w", kind, time.Since(tr.last[kind]).Round(time.Millisecond), tr.failed[kind])
			}
		}
		return nil
	})
}

// nothingLost compares what was acknowledged with what is there.
func (tr *traffic) nothingLost(t *testing.T) {
	t.Helper()
	tr.mu.Lock()
	acked := slices.Clone(tr.acked)
	tr.mu.Unlock()
	have := map[string]bool{}
	for _, name := range splitLines(kubectl(t, "get", "configmaps", "-l", "e2e=written", "-o", `jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}`)) {
		have[name] = true
	}
	if len(acked) == 0 {
		t.Fatal("no write was acknowledged in the whole test")
	}
	lost := slices.DeleteFunc(slices.Clone(acked), func(name string) bool { return have[name] })
	if len(lost) > 0 {
		t.Errorf("%d of %d acknowledged writes are lost: %v", len(lost), len(acked), lost)
	}
	t.Logf("%d writes acknowledged in %d attempts, none lost", len(acked), tr.attempts)
}

func splitLines(text string) []string {
	return strings.Split(strings.TrimSpace(text), "\n")
}

// watchOutput starts a command and returns what it has printed so far; the
// command ends with its context.
func watchOutput(t *testing.T, cmd *exec.Cmd) func() string {
	t.Helper()
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) // it may have ended
	return out.String
}
