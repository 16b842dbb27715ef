// Package send carries the logs of the node's services to the destinations of
// machine.logging, one JSON object per line, over TCP or UDP.
//
// It reads the log files: they are its buffer. While a destination is away,
// what the files can't keep is lost, and nothing waits for it. It owns the
// connections and no file.
package send

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"

	"talos/internal/configstore/active"
	"talos/internal/logs"
	"talos/internal/reconcile"
)

const (
	dialTimeout  = 5 * time.Second
	writeTimeout = 10 * time.Second
	firstPause   = time.Second
	longPause    = 30 * time.Second
)

// Controllers makes the package's controllers.
func Controllers(log *slog.Logger, m *logs.Manager) []controller.Controller {
	s := &sender{log: log, logs: m, running: map[string]context.CancelFunc{}}
	return []controller.Controller{&reconcile.Controller{
		ID: "runtime.LogSenderController", Log: log,
		In: []controller.Input{active.Input()}, Step: s.step, Close: s.close,
	}}
}

// sender keeps one goroutine per destination of the configuration.
type sender struct {
	log     *slog.Logger
	logs    *logs.Manager
	running map[string]context.CancelFunc // by the key of destinations
	all     sync.WaitGroup
}

// step follows the configuration. A destination that stays in it is left alone.
func (s *sender) step(ctx context.Context, r controller.Runtime, _ *slog.Logger) error {
	wanted, err := destinations(ctx, r)
	if err != nil {
		return err
	}
	for key, stop := range s.running {
		if _, ok := wanted[key]; !ok {
			stop()
			delete(s.running, key)
		}
	}
	for key, d := range wanted {
		if s.running[key] != nil {
			continue
		}
		one, stop := context.WithCancel(ctx)
		s.running[key] = stop
		s.all.Go(func() { s.serve(one, d) })
	}
	return nil
}

func (s *sender) close() {
	for key, stop := range s.running {
		stop()
		delete(s.running, key)
	}
	s.all.Wait()
}

// destination is where to send, and what to add to each line.
type destination struct {
	network, address string
	tags             map[string]string
}

// destinations reads the configuration, by a key that changes with any of its
// settings.
func destinations(ctx context.Context, r controller.Reader) (map[string]destination, error) {
	cfg, err := active.Config(ctx, r)
	if err != nil || cfg == nil {
		return nil, err
	}
	wanted := map[string]destination{}
	if cfg.Machine.Logging == nil {
		return wanted, nil
	}
	for _, d := range cfg.Machine.Logging.Destinations {
		u, err := url.Parse(d.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("logging destination %q: %w", d.Endpoint, err)
		}
		wanted[fmt.Sprintf("%s %v", d.Endpoint, d.ExtraTags)] = destination{network: u.Scheme, address: u.Host, tags: d.ExtraTags}
	}
	return wanted, nil
}

// record is a line of some service.
type record struct {
	service string
	logs.Entry
}

// serve sends everything that is logged, from the oldest that is kept, until
// ctx ends.
func (s *sender) serve(ctx context.Context, d destination) {
	records := make(chan record)
	var followers sync.WaitGroup
	followers.Go(func() { s.gather(ctx, records) })
	defer followers.Wait()
	var conn net.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for {
		var r record
		select {
		case <-ctx.Done():
			return
		case r = <-records:
		}
		line := encode(r, d.tags)
		for pause := firstPause; ; pause = min(2*pause, longPause) {
			var err error
			if conn, err = deliver(ctx, conn, d, line); err == nil {
				break
			}
			if pause == firstPause && ctx.Err() == nil {
				s.log.Warn("logs can't be sent", "network", d.network, "address", d.address, "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

// deliver writes a line, over a new connection if there is none; it returns
// the connection to go on with.
func deliver(ctx context.Context, conn net.Conn, d destination, line []byte) (net.Conn, error) {
	if conn == nil {
		var err error
		dialer := net.Dialer{Timeout: dialTimeout}
		if conn, err = dialer.DialContext(ctx, d.network, d.address); err != nil {
			return nil, err
		}
	}
	err := conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = conn.Write(line)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// gather follows the log of every service, also of those that come later.
func (s *sender) gather(ctx context.Context, out chan<- record) {
	var followers sync.WaitGroup
	defer followers.Wait()
	followed := map[string]bool{}
	for {
		added := s.logs.Added()
		for _, id := range s.logs.IDs() {
			if !followed[id] {
				followed[id] = true
				followers.Go(func() { s.follow(ctx, id, out) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-added:
		}
	}
}

func (s *sender) follow(ctx context.Context, id string, out chan<- record) {
	entries, err := s.logs.Entries(ctx, id, true, -1)
	if err != nil {
		s.log.Warn("log can't be read", "service", id, "err", err)
		return
	}
	defer entries.Close()
	for {
		entry, err := entries.Next()
		if err != nil {
			return
		}
		select {
		case out <- record{id, entry}:
		case <-ctx.Done():
			return
		}
	}
}

// encode makes the line of a record. The names are those that receivers of
// this ecosystem know.
func encode(r record, tags map[string]string) []byte {
	fields := map[string]string{}
	for k, v := range tags {
		fields[k] = v
	}
	fields["msg"] = r.Line
	fields["talos-service"] = r.service
	fields["talos-time"] = r.Time.UTC().Format(time.RFC3339Nano)
	fields["talos-level"] = logs.Level(r.Line)
	line, err := json.Marshal(fields)
	if err != nil { // strings always marshal
		return nil
	}
	return append(line, '\n')
}
