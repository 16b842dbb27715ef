package proxy

import (
	"time"

	"google.golang.org/grpc"
)

// Window is the flow control window of servers that proxy, in bytes, per
// stream and per connection: a fixed one spares the pings that measure.
const Window = 1 << 20

// Workers serve streams; their stacks have grown to what a call needs.
const Workers = 4

// Stop lets calls finish for a while, then ends them.
func Stop(server *grpc.Server, grace time.Duration) {
	timer := time.AfterFunc(grace, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}
