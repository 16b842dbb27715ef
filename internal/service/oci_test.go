package service

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var have = limits{caps: []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"}, oomScore: 0, noFile: 1000}

func TestCapabilities(t *testing.T) {
	spec := ociSpec(ContainerSpec{ID: "a", UID: 53, Capabilities: []string{"net_admin", "CAP_SYS_TIME"}}, have)
	want := []string{"CAP_NET_ADMIN"} // the node has no CAP_SYS_TIME to give
	c := spec.Process.Capabilities
	for name, got := range map[string][]string{
		"bounding": c.Bounding, "effective": c.Effective, "permitted": c.Permitted, "inheritable": c.Inheritable, "ambient": c.Ambient,
	} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if root := ociSpec(ContainerSpec{ID: "a"}, have).Process.Capabilities; len(root.Ambient) != 0 || len(root.Bounding) != 0 {
		t.Errorf("root without capabilities gets %+v, want none", root)
	}
	if got := ociSpec(ContainerSpec{ID: "a", Privileged: true}, have).Process.Capabilities.Bounding; !slices.Equal(got, have.caps) {
		t.Errorf("privileged gets %v, want what the node has", got)
	}
}

func TestConfinement(t *testing.T) {
	for _, privileged := range []bool{false, true} {
		spec := ociSpec(ContainerSpec{ID: "a", Privileged: privileged}, have)
		if !spec.Root.Readonly || !spec.Process.NoNewPrivileges {
			t.Errorf("privileged=%t: root is writable or privileges can be gained", privileged)
		}
		if confined := spec.Linux.Seccomp != nil && len(spec.Linux.MaskedPaths) > 0; confined == privileged {
			t.Errorf("privileged=%t: seccomp and masked paths = %t", privileged, confined)
		}
		for _, ns := range spec.Linux.Namespaces {
			if ns.Type == specs.NetworkNamespace {
				t.Error("has a network of its own")
			}
		}
	}
}

func TestLimits(t *testing.T) {
	want := ContainerSpec{ID: "a", OOMScoreAdj: -998, NoFile: 5000}
	free := have
	free.resources = true
	for _, tt := range []struct {
		name   string
		l      limits
		score  int
		noFile uint64
	}{{"free", free, -998, 5000}, {"without CAP_SYS_RESOURCE", have, 0, 1000}} {
		p := ociSpec(want, tt.l).Process
		if *p.OOMScoreAdj != tt.score || p.Rlimits[0].Hard != tt.noFile {
			t.Errorf("%s: score %d, files %d, want %d, %d", tt.name, *p.OOMScoreAdj, p.Rlimits[0].Hard, tt.score, tt.noFile)
		}
	}
}

func TestCgroupLimits(t *testing.T) {
	if r := ociSpec(ContainerSpec{ID: "a"}, have).Linux.Resources; r.Memory != nil || r.Pids != nil {
		t.Errorf("without limits: memory %+v, pids %+v, want none", r.Memory, r.Pids)
	}
	r := ociSpec(ContainerSpec{ID: "a", Memory: 1 << 20, Pids: 7}, have).Linux.Resources
	if r.Memory == nil || *r.Memory.Limit != 1<<20 || r.Pids == nil || *r.Pids.Limit != 7 {
		t.Errorf("limits = %+v, %+v, want 1 MiB and 7 processes", r.Memory, r.Pids)
	}
}

func TestMounts(t *testing.T) {
	own := specs.Mount{Destination: "/sys", Source: "/sys", Type: "bind", Options: []string{"rbind", "rslave"}}
	spec := ociSpec(ContainerSpec{ID: "a", Image: "x", Mounts: []specs.Mount{own}}, have)
	var sys []specs.Mount
	for _, m := range spec.Mounts {
		if m.Destination == "/sys" {
			sys = append(sys, m)
		}
	}
	if diff := cmp.Diff([]specs.Mount{own}, sys); diff != "" {
		t.Errorf("/sys (-want +got):\n%s", diff)
	}
	for _, tt := range []struct{ option, want string }{{"rw", "rprivate"}, {"rslave", "rslave"}, {"rshared", "rshared"}} {
		spec := ociSpec(ContainerSpec{ID: "a", Mounts: []specs.Mount{{Destination: "/m", Options: []string{"rbind", tt.option}}}}, have)
		if got := spec.Linux.RootfsPropagation; got != tt.want {
			t.Errorf("propagation with a mount that is %s = %s, want %s", tt.option, got, tt.want)
		}
	}
}
