// Package door holds what our servers share at their edge: how many
// connections they take before anybody has proved anything, and how they
// stop.
package door

import (
	"time"

	"google.golang.org/grpc"
)

// Stop lets calls finish for a while, then ends them.
func Stop(server *grpc.Server, grace time.Duration) {
	timer := time.AfterFunc(grace, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}
