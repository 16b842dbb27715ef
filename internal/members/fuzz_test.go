package members

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"talos/api/membership"
)

// FuzzList reads lists as a trustd, or somebody who plays one, may send them:
// what comes through can be shown, and no two nodes have one name.
func FuzzList(f *testing.F) {
	for _, list := range [][]Record{
		nil, {worker("a", "w-1", "10.0.0.2")}, {controlPlane("cp", "cp-1", "10.0.0.1", "fd00::1"), worker("b", "cp-1", "10.0.0.2")},
	} {
		data, err := proto.Marshal(ToWire(list))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	own := controlPlane("own", "own", "10.0.0.9")
	f.Fuzz(func(t *testing.T, data []byte) {
		var list membership.MemberList
		if proto.Unmarshal(data, &list) != nil {
			return
		}
		records, _ := FromWire(list.GetMembers()) // says what was left out
		names := map[string]bool{}
		for _, r := range Merge(records, &own) {
			if err := r.Check(); err != nil {
				t.Errorf("%+v came through: %v", r, err)
			}
			if names[r.Hostname] {
				t.Errorf("two are called %s", r.Hostname)
			}
			names[r.Hostname] = true
			if r.Hostname == own.Hostname && r.NodeID != own.NodeID {
				t.Errorf("%s is this node's name", r.Hostname)
			}
		}
		again, err := FromWire(ToWire(records).GetMembers())
		if err != nil || len(again) != len(records) {
			t.Errorf("%d records became %d: %v", len(records), len(again), err)
		}
	})
}

// FuzzRecord reads records as they may lie in etcd or on STATE.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"nodeId":"0123456789abcdefghijKLMN","hostname":"w-1","addresses":["10.0.0.2"],"machineType":"worker"}`))
	f.Add([]byte(`{"nodeId":"0123456789abcdefghijKLMN","hostname":"cp-1","addresses":["fd00::1"],"machineType":"controlplane","apiServerPort":6443,"alsoKnown":["x"]}`))
	f.Add([]byte(`{"hostname":"localhost","addresses":["127.0.0.1"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRecord(data)
		if err != nil {
			return
		}
		if !ValidHostname(r.Hostname) || !r.NodeID.Valid() || len(r.Addresses) == 0 {
			t.Errorf("accepted: %+v", r)
		}
		for _, a := range r.Addresses {
			if !Usable(a) || a.IsLoopback() {
				t.Errorf("accepted address %v", a)
			}
		}
	})
}
