package provision

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"talos/internal/provision/ntp"
)

// Where the supervisor serves virtual machines, on the gateway's address.
const (
	ConfigPort = 5001
	ntpPort    = 123
)

// configPath is where a node's configuration is served. The id is not secret.
func configPath(n Node) string { return "/" + n.UUID + "/config.yaml" }

func (c *Cluster) configURL(n Node) string {
	return "http://" + netip.AddrPortFrom(c.Gateway, ConfigPort).String() + configPath(n)
}

// configFile holds a virtual machine's configuration.
func (d dirs) configFile(node string) string { return d.node(node) + "/config.yaml" }

// configuration serves nodes their configurations.
func (s *supervisor) configuration(ctx context.Context, ready func()) error {
	l, err := s.listen(ctx, ConfigPort)
	if err != nil {
		return err
	}
	log := s.log.With("service", "configuration")
	srv := &http.Server{
		Handler:           s.cluster.configurations(log),
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	ready()
	err = srv.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// configurations gives each node its own configuration, and nobody another's:
// they hold the cluster's keys.
func (c *Cluster) configurations(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	for _, n := range c.Nodes {
		mux.HandleFunc("GET "+configPath(n), func(w http.ResponseWriter, r *http.Request) {
			peer, err := netip.ParseAddrPort(r.RemoteAddr)
			if err != nil || peer.Addr().Unmap() != n.Address {
				log.Warn("refused a configuration", "node", n.Name, "peer", r.RemoteAddr)
				http.Error(w, "not yours", http.StatusForbidden)
				return
			}
			data, err := os.ReadFile(c.dirs.configFile(n.Name))
			if err != nil {
				log.Error("serve a configuration", "node", n.Name, "err", err)
				http.Error(w, "not readable", http.StatusInternalServerError)
				return
			}
			log.Info("served a configuration", "node", n.Name)
			w.Header().Set("Content-Type", "application/yaml")
			w.Write(data) // a client that went away asks again
		})
	}
	return mux
}

// ntp tells nodes this host's time.
func (s *supervisor) ntp(ctx context.Context, ready func()) error {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", netip.AddrPortFrom(s.cluster.Gateway, ntpPort).String())
	if err != nil {
		return err
	}
	ready()
	return ntp.Serve(ctx, s.log.With("service", "ntp"), conn)
}
