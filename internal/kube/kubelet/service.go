package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/opencontainers/runtime-spec/specs-go"

	"talos/internal/configstore/active"
	"talos/internal/layout"
	"talos/internal/resources/k8s"
	"talos/internal/resources/secrets"
	"talos/internal/service"
)

// Service is the kubelet as a service: a privileged container with the node's
// process ids, network, devices and folders. It starts before etcd, because
// the control plane's pods are its to start.
//
// server gives the address by which this node reaches the API.
func Service(st state.State, where Surroundings, server func(ctx context.Context, st state.State) (string, error)) service.Definition {
	return service.Definition{
		ID:        ID,
		DependsOn: []string{"cri"},
		WaitText:  "waiting for its configuration, a node name and an address",
		Wait:      func(ctx context.Context) error { return await(ctx, st) },
		Runner: service.Container{
			Instance: service.CRI,
			Grace:    20 * time.Second,
			Spec: func(ctx context.Context) (service.ContainerSpec, error) {
				g, err := gather(ctx, st, server)
				if err != nil {
					return service.ContainerSpec{}, err
				}
				if err := prepare("", g); err != nil {
					return service.ContainerSpec{}, fmt.Errorf("prepare the kubelet's files: %w", err)
				}
				return container(g.spec, where), nil
			},
		},
		Health:  &service.Health{Check: healthy, Period: 5 * time.Second, Timeout: 2 * time.Second},
		Control: true,
	}
}

// await returns when everything is there that the kubelet's files are made of.
func await(ctx context.Context, st state.State) error {
	if err := exists(ctx, st, k8s.NewKubeletSpec(ID).Metadata()); err != nil {
		return err
	}
	if err := exists(ctx, st, secrets.NewKubeletSecrets(ID).Metadata()); err != nil {
		return err
	}
	cfg, err := active.Config(ctx, st)
	if err != nil || cfg == nil || !cfg.IsControlPlane() {
		return err
	}
	return exists(ctx, st, secrets.NewKubernetesRootSecrets("k8s").Metadata()) // it issues its own certificate
}

func exists(ctx context.Context, st state.State, p resource.Pointer) error {
	_, err := st.WatchFor(ctx, p, state.WithEventTypes(state.Created, state.Updated))
	return err
}

func gather(ctx context.Context, st state.State, server func(context.Context, state.State) (string, error)) (given, error) {
	spec, err := safe.StateGetByID[*k8s.KubeletSpec](ctx, st, ID)
	if err != nil {
		return given{}, err
	}
	sec, err := safe.StateGetByID[*secrets.KubeletSecrets](ctx, st, ID)
	if err != nil {
		return given{}, err
	}
	g := given{spec: *spec.TypedSpec(), secrets: *sec.TypedSpec(), now: time.Now()}
	root, err := safe.StateGetByID[*secrets.KubernetesRootSecrets](ctx, st, "k8s")
	switch {
	case err == nil:
		g.issuing = root.TypedSpec().IssuingCA
	case !state.IsNotFoundError(err):
		return given{}, err
	}
	g.server, err = server(ctx, st)
	return g, err
}

// container is how the kubelet runs.
func container(spec k8s.KubeletSpecSpec, where Surroundings) service.ContainerSpec {
	return service.ContainerSpec{
		ID:          ID,
		Image:       spec.Image,
		Args:        append([]string{"kubelet"}, spec.Args...),
		Mounts:      mounts(spec),
		HostPID:     true,
		Privileged:  true,
		OOMScoreAdj: oomScore(where),
	}
}

// mounts are the node's folders that the kubelet works with. Volumes that it
// mounts must show on the node, and the other way round.
func mounts(spec k8s.KubeletSpecSpec) []specs.Mount {
	bind := func(path string, options ...string) specs.Mount {
		return specs.Mount{Destination: path, Source: path, Type: "bind", Options: append([]string{"rbind"}, options...)}
	}
	out := []specs.Mount{
		bind("/etc/kubernetes", "rw"),
		bind("/etc/cni", "rw"),
		bind("/opt", "rshared", "rw"),
		bind(layout.EphemeralDir, "rshared", "rw"), // pods' volumes and logs, images, and hostPath volumes
		bind("/run", "rshared", "rw"),
		bind("/usr/lib/cni", "ro"),
		bind("/etc/ssl", "ro"),
		bind("/etc/os-release", "ro"),
		bind("/etc/hosts", "ro"),
		bind("/etc/resolv.conf", "ro"),
		bind("/etc/machine-id", "ro"),
		bind(layout.EtcDir, "ro"),
	}
	out = slices.DeleteFunc(out, func(m specs.Mount) bool { // such as a machine id on a node that has none
		_, err := os.Stat(m.Source)
		return errors.Is(err, os.ErrNotExist)
	})
	for _, m := range spec.ExtraMounts {
		out = append(out, specs.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options})
	}
	return out
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func healthy(ctx context.Context) error {
	const url = "http://127.0.0.1:10248/healthz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // for the message only
	return errors.New("kubelet is unwell: " + string(text))
}
