// Package networkd keeps the node's links, addresses and routes as the store
// wants them, speaks DHCP, answers DNS on the node (package hostdns), and tells
// the store what the kernel has.
//
// It owns what it made in the kernel, known by its marks (package rtnl), and
// every resource in namespace network. It leaves alone what others made, such
// as the pod network. It can be killed at any time: nothing is taken away
// when it stops, and the next run starts from store and kernel. The API that
// it serves to routerd is safe for concurrent use.
package networkd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/controller/runtime/options"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/state"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"talos/internal/layout"
	"talos/internal/networkd/rtnl"
	"talos/internal/resources/cluster"
	"talos/internal/resources/files"
	"talos/internal/resources/network"
	"talos/internal/store"
)

// Run works until ctx ends. A store that is not there yet, or went away, is
// waited for.
func Run(ctx context.Context, log *slog.Logger) error {
	st, err := store.Dial(ctx)
	if err != nil {
		return err
	}
	return run(ctx, st, layout.NetworkSocket, log)
}

func run(ctx context.Context, st state.State, socket string, log *slog.Logger) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return repeat(ctx, log, "controllers", func(ctx context.Context) error { return control(ctx, st, log) })
	})
	group.Go(func() error {
		return repeat(ctx, log, "network service", func(ctx context.Context) error { return serve(ctx, socket) })
	})
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// repeat runs a task until ctx ends, again and ever more slowly when it fails.
func repeat(ctx context.Context, log *slog.Logger, task string, fn func(context.Context) error) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		started := time.Now()
		err := fn(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(started) > time.Minute {
			pause = 100 * time.Millisecond
		}
		log.Warn("task stopped", "task", task, "err", err, "retry", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// control runs the controllers until ctx ends or the store goes away.
func control(ctx context.Context, st state.State, log *slog.Logger) error {
	kernel := &rtnl.Monitor{}
	opts := []options.Option{options.WithMetrics(false)}
	for _, kind := range cached {
		opts = append(opts, options.WithCachedResource(kind.Namespace(), kind.Type()))
	}
	engine, err := runtime.NewRuntime(st, engineLog(), opts...)
	if err != nil {
		return fmt.Errorf("make the controllers' runtime: %w", err)
	}
	var all []controller.Controller
	all = append(all, statuses(log, kernel)...)
	all = append(all, mergers(log)...)
	all = append(all, settlers(log)...)
	all = append(all, appliers(log, kernel)...)
	all = append(all, operatorController(log), hostDNSController(log))
	for _, c := range all {
		if err := engine.RegisterController(c); err != nil {
			return fmt.Errorf("register %s: %w", c.Name(), err)
		}
	}
	ctx, stop := context.WithCancel(ctx)
	var group errgroup.Group
	group.Go(func() error { return repeat(ctx, log, "rtnetlink monitor", kernel.Run) })
	defer group.Wait() // its error is only that ctx ended
	defer stop()
	return engine.Run(ctx)
}

// cached is what is read through a watch instead of a call for each read.
var cached = []resource.Kind{
	network.NewAddressSpec(network.ConfigNamespace, "").Metadata(), network.NewAddressSpec(network.Namespace, "").Metadata(),
	network.NewRouteSpec(network.ConfigNamespace, "").Metadata(), network.NewRouteSpec(network.Namespace, "").Metadata(),
	network.NewLinkSpec(network.ConfigNamespace, "").Metadata(), network.NewLinkSpec(network.Namespace, "").Metadata(),
	network.NewOperatorSpec(network.ConfigNamespace, "").Metadata(), network.NewOperatorSpec(network.Namespace, "").Metadata(),
	network.NewHostnameSpec(network.ConfigNamespace, "").Metadata(), network.NewHostnameSpec(network.Namespace, "").Metadata(),
	network.NewResolverSpec(network.ConfigNamespace, "").Metadata(), network.NewResolverSpec(network.Namespace, "").Metadata(),
	network.NewTimeServerSpec(network.ConfigNamespace, "").Metadata(), network.NewTimeServerSpec(network.Namespace, "").Metadata(),
	network.NewLinkStatus("").Metadata(), network.NewHardwareAddress("").Metadata(), network.NewAddressStatus("").Metadata(),
	network.NewRouteStatus("").Metadata(), network.NewNodeAddress("").Metadata(), network.NewHostnameStatus("").Metadata(),
	network.NewResolverStatus("").Metadata(), network.NewTimeServerStatus("").Metadata(), network.NewNetworkStatus("").Metadata(),
	files.NewEtcFileStatus("").Metadata(), network.NewNodeAddressSortAlgorithm("").Metadata(), cluster.NewMember("").Metadata(),
	network.NewHostDNSConfig("").Metadata(), network.NewDNSUpstream("").Metadata(), network.NewDNSResolveCache("").Metadata(),
}

// engineLog passes on what the controllers' runtime itself warns of.
func engineLog() *zap.Logger {
	encoder := zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), zap.WarnLevel))
}
