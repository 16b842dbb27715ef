// Package door holds what our servers share at their edge: how many
// connections they take, of whom, and who has to go when there are too many
// (Guard), what becomes of a panic in a call, and how they stop.
//
// It leaves to them how somebody proves who he is. All of it is safe for
// concurrent use.
package door

import (
	"time"

	"google.golang.org/grpc"
)

// Window is the flow control window, in bytes, per stream and per connection,
// of our servers and of what calls them on the same machine. A fixed one spares
// the ping that else follows every message to measure.
const Window = 1 << 20

// Stop lets calls finish for a while, then ends them.
func Stop(server *grpc.Server, grace time.Duration) {
	timer := time.AfterFunc(grace, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}
