package provision

import (
	"context"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/machine"
	"talos/client"
	"talos/internal/loop"
)

// bootstrap starts etcd on the first control plane node as soon as that answers:
// once in the life of a cluster. After that a file says that it was done, so
// that nodes whose disks were erased find their cluster again, or are recovered
// by whoever has its snapshot, and never become a second, empty one.
func (s *supervisor) bootstrap(ctx context.Context) {
	first := s.cluster.controlPlanes()[0]
	for last := ""; s.cluster.bootstrapped() != nil; {
		err := s.cluster.apiAnswers(ctx, first)
		if err == nil {
			err = s.cluster.bootstrap(ctx, first)
		}
		if err == nil {
			err = os.WriteFile(s.cluster.dirs.bootstrapped(), nil, 0o600)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			s.log.Info("etcd is bootstrapped", "node", first.Name)
			continue
		}
		if text := err.Error(); text != last {
			last = text
			s.update(func(state *supervisorState) { state.Bootstrap = text })
		}
		var final errFinal
		if errors.As(err, &final) {
			s.log.Error("bootstrap etcd", "node", first.Name, "err", err)
			return
		}
		if !loop.Sleep(ctx, s.cluster.backend().pace()) {
			return
		}
	}
}

// bootstrapped is nil when etcd has been bootstrapped.
func (c *Cluster) bootstrapped() error {
	if _, err := os.Stat(c.dirs.bootstrapped()); err == nil {
		return nil
	}
	if why := c.dirs.readSupervisor().Bootstrap; why != "" {
		return errors.New(why)
	}
	return errors.New("not bootstrapped yet")
}

// bootstrap asks a node to start etcd; that it has done so is fine.
func (c *Cluster) bootstrap(ctx context.Context, n Node) error {
	ctx, cancel := context.WithTimeout(ctx, bootstrapIn)
	defer cancel()
	api, err := c.api(ctx, n)
	if err != nil {
		return errFinal{err}
	}
	defer api.Close()
	_, err = api.Machine.Bootstrap(ctx, &machine.BootstrapRequest{})
	switch status.Code(err) {
	case codes.OK, codes.AlreadyExists:
		return nil
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.Unimplemented:
		return errFinal{fmt.Errorf("bootstrap %s: %w", n.Name, err)}
	default:
		return err
	}
}

// api makes a client of one node's API.
func (c *Cluster) api(ctx context.Context, n Node) (*client.Client, error) {
	return client.New(ctx, client.Options{Path: c.Talosconfig(), Context: c.Name, Endpoints: []string{n.apiAddress()}})
}
