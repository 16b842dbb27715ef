package health

import (
	"context"
	"errors"
	"fmt"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"go.yaml.in/yaml/v3"
)

// Member is a node that the cluster knows.
type Member struct {
	Hostname     string
	Addresses    []string
	ControlPlane bool
}

// Members asks a node for all that it knows.
func Members(ctx context.Context, resources cosi.StateClient) ([]Member, error) {
	specs, err := Node{Resources: resources}.list(ctx, "cluster", "Members.cluster.talos.dev")
	if err != nil {
		return nil, err
	}
	var out []Member
	for id, text := range specs {
		var spec struct {
			Hostname    string   `yaml:"hostname"`
			Addresses   []string `yaml:"addresses"`
			MachineType string   `yaml:"machineType"`
		}
		if err := yaml.Unmarshal([]byte(text), &spec); err != nil {
			return nil, fmt.Errorf("decode member %s: %w", id, err)
		}
		if len(spec.Addresses) == 0 {
			return nil, fmt.Errorf("%s has no address yet", spec.Hostname)
		}
		out = append(out, Member{Hostname: spec.Hostname, Addresses: spec.Addresses, ControlPlane: spec.MachineType != "worker"})
	}
	if len(out) == 0 {
		return nil, errors.New("the members of the cluster are not known yet")
	}
	return out, nil
}
