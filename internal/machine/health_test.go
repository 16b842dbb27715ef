package machine

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/cluster"
)

func TestNodesThatACallerNames(t *testing.T) {
	some := make([]string, healthNodes/2)
	for _, c := range []struct {
		info *cluster.ClusterInfo
		want codes.Code
	}{
		{nil, codes.OK},
		{&cluster.ClusterInfo{ControlPlaneNodes: some, WorkerNodes: some}, codes.OK},
		{&cluster.ClusterInfo{ControlPlaneNodes: some, WorkerNodes: append(some, "one more")}, codes.InvalidArgument},
	} {
		if err := mayName(c.info); status.Code(err) != c.want {
			t.Errorf("%d nodes: %v, want %v", len(c.info.GetControlPlaneNodes())+len(c.info.GetWorkerNodes()), err, c.want)
		}
	}
}
