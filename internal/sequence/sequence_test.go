package sequence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"talos/api/machine"
	"talos/internal/containers"
	"talos/internal/power"
	"talos/internal/service"
)

var quiet = slog.New(slog.DiscardHandler)

func step(name string, optional bool, err error) Step {
	return Step{Name: name, Optional: optional, Run: func(context.Context) error { return err }}
}

func TestRun(t *testing.T) {
	boom := errors.New("boom")
	hang := Step{Name: "hang", Run: func(context.Context) error { select {} }}
	hangOptional := hang
	hangOptional.Optional = true
	panics := Step{Name: "panics", Run: func(context.Context) error { panic("at the disco") }}
	for _, tt := range []struct {
		name   string
		first  Phase
		err    string // "" is success
		second bool   // the next phase ran
	}{
		{"good", Phase{Steps: []Step{step("a", false, nil), step("b", false, nil)}}, "", true},
		{"required fails", Phase{Steps: []Step{step("a", false, boom)}}, "test: first: a: boom", false},
		{"all failures are told", Phase{Steps: []Step{step("a", false, boom), step("b", false, boom)}}, "test: first: a: boom\nb: boom", false},
		{"optional fails", Phase{Steps: []Step{step("a", true, boom)}}, "", true},
		{"required hangs", Phase{Deadline: time.Second, Steps: []Step{hang}}, "test: first: hang: context deadline exceeded", false},
		{"optional hangs", Phase{Deadline: time.Second, Steps: []Step{hangOptional}}, "", true},
		{"panic", Phase{Steps: []Step{panics}}, "test: first: panics: panic: at the disco", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ran := false
			tt.first.Name = "first"
			second := Phase{Name: "second", Steps: []Step{{Name: "s", Run: func(context.Context) error { ran = true; return nil }}}}
			err := Run(t.Context(), quiet, "test", []Phase{tt.first, second}, nil)
			switch {
			case tt.err == "" && err != nil, tt.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.err)):
				t.Errorf("Run = %v, want %q", err, tt.err)
			}
			if ran != tt.second {
				t.Errorf("second phase ran: %t, want %t", ran, tt.second)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	var got []string
	tell := func(e Event) { got = append(got, fmt.Sprintf("%s %t %v", e.Phase, e.Done, e.Err)) }
	phases := []Phase{{Name: "a", Steps: []Step{step("x", false, nil)}}, {Name: "b", Steps: []Step{step("y", false, fs.ErrInvalid)}}}
	if err := Run(t.Context(), quiet, "test", phases, tell); !errors.Is(err, fs.ErrInvalid) {
		t.Fatalf("Run = %v, want ErrInvalid", err)
	}
	want := []string{"a false <nil>", "a true <nil>", "b false <nil>", "b true y: invalid argument"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// world is a node that goes down: it notes what is done to it.
type world struct {
	mu    sync.Mutex // guards the fields below
	notes []string
	hang  string // what does not come back
	fail  string // what returns an error
	pods  map[string]containers.Container
	stays bool // pods ignore SIGTERM
}

func (w *world) do(ctx context.Context, what string) error {
	w.mu.Lock()
	w.notes = append(w.notes, what)
	hang, fail := w.hang == what, w.fail == what
	w.mu.Unlock()
	if hang {
		<-make(chan struct{})
	}
	if fail {
		return errors.New("boom")
	}
	return nil
}

func (w *world) Stop(ctx context.Context, id string) error {
	if id != "kubelet" {
		return service.ErrUnknown
	}
	return w.do(ctx, "stop "+id)
}
func (w *world) StopAll(ctx context.Context, _ ...string) error { return w.do(ctx, "stop services") }

func (w *world) List(context.Context, containers.Instance, string) ([]containers.Container, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail == "pods" {
		return nil, errors.New("containerd is away")
	}
	var list []containers.Container
	for _, p := range w.pods {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b containers.Container) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func (w *world) Kill(_ context.Context, _ containers.Instance, _, id string, sig syscall.Signal, _ bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, fmt.Sprintf("%v %s", sig, id))
	if sig == syscall.SIGKILL || !w.stays {
		p := w.pods[id]
		p.PID = 0
		w.pods[id] = p
	}
	return nil
}

func (w *world) controller(t *testing.T) (*Controller, string) {
	file := filepath.Join(t.TempDir(), "power")
	return New(Options{
		Log: quiet, Services: w, Pods: w, PowerFile: file,
		KillAll: func(ctx context.Context) error { return w.do(ctx, "kill") },
		Unmount: func(ctx context.Context) error { return w.do(ctx, "unmount") },
		Sync:    func(ctx context.Context) error { return w.do(ctx, "sync") },
		Down:    func(a power.Action) error { return w.do(context.Background(), "down "+string(a)) },
	}), file
}

func pods() map[string]containers.Container {
	return map[string]containers.Container{
		"api":  {ID: "api", PID: 13, PodNamespace: "kube-system", PodName: "kube-apiserver-n", Name: "kube-apiserver"},
		"app":  {ID: "app", PID: 10, PodName: "p", Name: "c"},
		"old":  {ID: "old", PodName: "p", Name: "c"},
		"pod":  {ID: "pod", PID: 11, PodName: "p", Sandbox: true},
		"side": {ID: "side", PID: 12, PodName: "p", Name: "d"},
	}
}

func TestReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{pods: pods()}
		c, file := w.controller(t)
		actor, err := c.Reboot(t.Context(), machine.RebootRequest_DEFAULT)
		if err != nil || actor == "" {
			t.Fatalf("Reboot = %q, %v", actor, err)
		}
		if again, err := c.Reboot(t.Context(), machine.RebootRequest_DEFAULT); err != nil || again != actor {
			t.Errorf("a second Reboot = %q, %v, want to join %q", again, err, actor)
		}
		if _, err := c.Shutdown(t.Context(), false); err == nil {
			t.Error("Shutdown during a reboot = nil, want an error")
		}
		<-c.done
		want := []string{"stop kubelet", "terminated app", "terminated side", "terminated api", "killed pod", "stop services", "kill", "sync", "unmount", "sync", "down reboot"}
		if diff := cmp.Diff(want, w.notes); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != "reboot\n" {
			t.Errorf("power file = %q, %v, want reboot", got, err)
		}
	})
}

func TestStubbornPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{pods: pods(), stays: true}
		c, _ := w.controller(t)
		began := time.Now()
		if _, err := c.Shutdown(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		<-c.done
		if took := time.Since(began); took < podGrace+serverGrace || took > podGrace+serverGrace+time.Second {
			t.Errorf("took %v, want the pods' grace of %v", took, podGrace+serverGrace)
		}
		for _, want := range []string{"killed app", "killed side", "killed pod", "down poweroff"} {
			if !slices.Contains(w.notes, want) {
				t.Errorf("no %q in %q", want, w.notes)
			}
		}
	})
}

// TestEachFails: whatever step fails or hangs, the node goes down in time.
func TestEachFails(t *testing.T) {
	for _, what := range []string{"stop kubelet", "stop services", "kill", "sync", "unmount", "pods"} {
		for _, hang := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s hang=%t", what, hang), func(t *testing.T) {
				w := &world{pods: pods()}
				if hang {
					w.hang = what
				} else {
					w.fail = what
				}
				c, _ := w.controller(t)
				c.o.scale = 1000
				if _, err := c.Reboot(t.Context(), machine.RebootRequest_DEFAULT); err != nil {
					t.Fatal(err)
				}
				select {
				case <-c.done:
				case <-time.After(10 * time.Second):
					t.Fatal("the node does not go down")
				}
				if last := w.notes[len(w.notes)-1]; last != "down reboot" {
					t.Errorf("the last step is %q, want down reboot", last)
				}
			})
		}
	}
}

func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{pods: pods()}
		c, _ := w.controller(t)
		if _, err := c.Reboot(t.Context(), machine.RebootRequest_FORCE); err != nil {
			t.Fatal(err)
		}
		<-c.done
		if want := []string{"kill", "sync", "unmount", "sync", "down reboot"}; !slices.Equal(w.notes, want) {
			t.Errorf("steps = %q, want %q", w.notes, want)
		}
	})
}
