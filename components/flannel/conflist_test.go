package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const dualStack = `FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.3.1/24
FLANNEL_IPV6_NETWORK=fd00:10:244::/56
FLANNEL_IPV6_SUBNET=fd00:10:244:3::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
`

func TestWriteConflist(t *testing.T) {
	dir := t.TempDir()
	subnet, conf := filepath.Join(dir, "subnet.env"), filepath.Join(dir, "net.d", "10-flannel.conflist")
	if err := os.WriteFile(subnet, []byte(dualStack), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeConflist(subnet, conf, "/run/cni/ipam"); err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Plugins []struct {
			Type   string
			MTU    int
			IPMasq bool
			IPAM   struct {
				Ranges [][]struct{ Subnet string }
				Routes []struct{ Dst string }
			}
		}
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	bridge := got.Plugins[0]
	if bridge.Type != "bridge" || bridge.MTU != 1450 || bridge.IPMasq {
		t.Errorf("bridge = %+v, want MTU 1450 and no masquerading", bridge)
	}
	if r := bridge.IPAM.Ranges; len(r) != 2 || r[0][0].Subnet != "10.244.3.0/24" || r[1][0].Subnet != "fd00:10:244:3::/64" {
		t.Errorf("ranges = %v, want the node's two subnets", r)
	}
	if r := bridge.IPAM.Routes; len(r) != 2 || r[0].Dst != "10.244.0.0/16" {
		t.Errorf("routes = %v, want the cluster's two networks", r)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "net.d", "*")); len(left) != 1 {
		t.Errorf("files = %v, want the configuration alone", left)
	}
}

func TestParseSubnetRefuses(t *testing.T) {
	for _, bad := range []string{
		"",
		"FLANNEL_SUBNET=10.244.3.1/24\n",
		"FLANNEL_SUBNET=10.244.3.1\nFLANNEL_MTU=1450\n",
		"FLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=big\n",
	} {
		if got, err := parseSubnet(strings.NewReader(bad)); err == nil {
			t.Errorf("parseSubnet(%q) = %+v, want an error", bad, got)
		}
	}
}
