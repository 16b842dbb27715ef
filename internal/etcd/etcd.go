// Package etcd runs this node's etcd member: what it is configured with, its
// files, when it may start, whether it works, and what it knows of the
// cluster.
//
// It leaves the making of certificates to package secrets and the running of
// the program to package service. A Member is safe for concurrent use.
package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/opencontainers/runtime-spec/specs-go"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"talos/config"
	"talos/internal/configstore/active"
	"talos/internal/layout"
	"talos/internal/resources/etcd"
	"talos/internal/resources/secrets"
	"talos/internal/service"
)

// ServiceID is the id of the etcd service.
const ServiceID = "etcd"

// Ports of every member.
const (
	clientPort = 2379
	peerPort   = 2380
)

// factsPeriod is how often the node's own facts are looked at while one lacks.
const factsPeriod = 200 * time.Millisecond

// Errors that callers tell apart.
var (
	ErrNotControlPlane     = errors.New("this node is a worker: etcd runs on control plane nodes only; send bootstrap to one of those")
	ErrAlreadyBootstrapped = errors.New("etcd has data on this node already: the cluster was bootstrapped before")
	ErrClusterExists       = errors.New("the cluster was bootstrapped before, on another node: this one joins it by itself")
	ErrNoConfiguration     = errors.New("this node has no configuration yet: apply one first")
)

// Services is what a member needs of the supervisor that runs it.
type Services interface {
	Stop(ctx context.Context, id string) error
}

// Member is the etcd member of this node.
type Member struct {
	st       state.State
	log      *slog.Logger
	services Services
	local    string // the address at which this node's member is asked
	uid      int    // whom its files belong to
	dataDir  string
	// marker exists from an accepted Bootstrap until the member first works,
	// so that a reboot in between does not lose what was promised.
	marker  string
	pkiDir  string
	changed chan struct{} // capacity 1: something that Wait looks at changed

	// fetch makes an image be there; run runs a container to its end.
	fetch func(ctx context.Context, image string) error
	run   func(context.Context, service.ContainerSpec, io.Writer) error

	acting     sync.Mutex // guards the two below; held while files of the member change
	recovering bool       // a snapshot is restored: nothing may start
	starting   bool       // it was decided to start: nothing may be restored

	mu      sync.Mutex // guards the fields below
	client  *clientv3.Client
	start   start  // how the program starts, as was decided last
	started bool   // it did, since the node booted
	left    bool   // it was told to
	fresh   uint64 // the learner that was added for this node, 0 when none
}

// New makes the member of the node whose facts are in st; services stops it when
// it leaves.
func New(st state.State, log *slog.Logger, services Services) *Member {
	return &Member{
		st: st, log: log.With("component", "etcd"), services: services, local: "127.0.0.1", uid: layout.EtcdUID, fetch: fetchImage, run: runContainer,
		dataDir: layout.EtcdDataDir, marker: layout.EtcdDataDir + ".bootstrap", pkiDir: filepath.Join(layout.SecretsDir, "etcd"),
		changed: make(chan struct{}, 1),
	}
}

// Service says how the member runs.
func (m *Member) Service() service.Definition {
	return service.Definition{
		ID:        ServiceID,
		DependsOn: []string{"cri"},
		Wait:      m.wait,
		WaitText:  "for etcd's configuration",
		Runner:    service.Container{Instance: service.CRI, Spec: m.spec},
		Health:    &service.Health{Check: m.healthy, Period: 5 * time.Second, Timeout: 3 * time.Second},
	}
}

// wait blocks until the member has all it needs: files, a spec, and data, a
// place in a cluster, or the word that it shall be the first of its own.
func (m *Member) wait(ctx context.Context) error {
	for {
		spec, reason, err := m.missing(ctx)
		if err != nil {
			return err
		}
		if reason == "" {
			return m.decide(ctx, spec)
		}
		service.SetReason(ctx, reason)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.changed:
		case <-time.After(factsPeriod): // resources change without telling us
		}
	}
}

// missing names what the member still waits for on this node, "" when nothing.
func (m *Member) missing(ctx context.Context) (*etcd.EtcdSpecSpec, string, error) {
	spec, err := safe.StateGetByID[*etcd.EtcdSpec](ctx, m.st, SpecID)
	if state.IsNotFoundError(err) {
		return nil, "for the node's address and name", nil
	}
	if err != nil {
		return nil, "", err
	}
	pki, err := safe.StateGetByID[*etcd.PKIStatus](ctx, m.st, PKIStatusID)
	if state.IsNotFoundError(err) || (err == nil && !pki.TypedSpec().Ready) {
		return nil, "for certificates", nil
	}
	return spec.TypedSpec(), "", err
}

// Bootstrap makes this member the first of a new cluster. It returns when the
// decision is on disk; the service starts by itself.
func (m *Member) Bootstrap(ctx context.Context) error {
	if err := m.mayFound(ctx); err != nil {
		return err
	}
	if err := writeMarker(m.marker); errors.Is(err, fs.ErrExist) {
		return ErrAlreadyBootstrapped // of two callers at once, one was first
	} else if err != nil {
		return fmt.Errorf("bootstrap etcd: %w", err)
	}
	m.wake()
	return nil
}

// mayFound says why this node can't be the first of a cluster: it is none for
// that, it has a member's files, or the others have a cluster.
func (m *Member) mayFound(ctx context.Context) error {
	cfg, err := m.config(ctx)
	if err != nil {
		return err
	}
	if cfg.Machine.Type == "worker" {
		return ErrNotControlPlane
	}
	if m.hasFiles() || exists(m.marker) {
		return ErrAlreadyBootstrapped
	}
	seen, _, err := m.others(ctx)
	if err == nil && seen != nil {
		return fmt.Errorf("%w: %v", ErrClusterExists, seen.Quorum())
	}
	return err
}

// wake makes a member that waits look again.
func (m *Member) wake() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// config is the machine configuration in force.
func (m *Member) config(ctx context.Context) (*config.Config, error) {
	cfg, err := active.Config(ctx, m.st)
	if err == nil && cfg == nil {
		return nil, ErrNoConfiguration
	}
	return cfg, err
}

// hasData says whether the data directory holds a member: its log. etcd makes
// the log's folder, with the member's identity in it, in one step.
func (m *Member) hasData() bool {
	logs, _ := filepath.Glob(filepath.Join(m.dataDir, "member", "wal", "*.wal")) // the pattern is right
	return len(logs) > 0
}

// hasFiles says whether there is anything of a member, be it of no use.
func (m *Member) hasFiles() bool { return exists(filepath.Join(m.dataDir, "member")) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// writeMarker makes an empty file that survives a power cut; fs.ErrExist when it
// is there already. After any other error there is none: nothing was promised.
func writeMarker(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close(), syncFolder(filepath.Dir(path))); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// spec makes the container, and the folder it keeps its data in.
func (m *Member) spec(ctx context.Context) (service.ContainerSpec, error) {
	res, err := safe.StateGetByID[*etcd.EtcdSpec](ctx, m.st, SpecID)
	if err != nil {
		return service.ContainerSpec{}, fmt.Errorf("etcd spec: %w", err)
	}
	cfg, err := m.config(ctx)
	if err != nil {
		return service.ContainerSpec{}, err
	}
	if err := os.MkdirAll(m.dataDir, 0o700); err != nil {
		return service.ContainerSpec{}, err
	}
	if err := os.Chown(m.dataDir, m.uid, m.uid); err != nil {
		return service.ContainerSpec{}, err
	}
	spec := res.TypedSpec()
	m.mu.Lock()
	m.started = true
	how := m.start
	m.mu.Unlock()
	return service.ContainerSpec{
		ID:    ServiceID,
		Image: spec.Image,
		Args:  append([]string{"/usr/local/bin/etcd"}, arguments(*spec, how, newToken(cfg.Cluster.ID), m.dataDir, m.pkiDir)...),
		UID:   uint32(m.uid), GID: uint32(m.uid),
		Mounts: []specs.Mount{
			bind(m.dataDir, "rw"),
			bind(m.pkiDir, "ro"),
		},
		OOMScoreAdj: -998,
		Cgroup:      "/podruntime/etcd",
		NoFile:      10240,
	}, nil
}

func bind(path, mode string) specs.Mount {
	return specs.Mount{Type: "bind", Source: path, Destination: path, Options: []string{"bind", mode, "nosuid", "nodev", "noexec"}}
}

// arguments are the program's. What the user gives in extraArgs replaces ours,
// except the flags that keep the member's identity, its way into the cluster
// and its encryption. A program that has data heeds none of the initial ones.
func arguments(spec etcd.EtcdSpecSpec, how start, token, dataDir, pkiDir string) []string {
	peerURL := urlOf(spec.AdvertisedAddresses[0].String(), peerPort)
	var listenPeer, listenClient []string
	for _, a := range spec.ListenPeerAddresses {
		listenPeer = append(listenPeer, urlOf(a.String(), peerPort))
	}
	for _, a := range spec.ListenClientAddresses {
		listenClient = append(listenClient, urlOf(a.String(), clientPort))
	}
	pki := func(name string) string { return filepath.Join(pkiDir, name) }
	args := map[string][]string{
		"name":                        {spec.Name},
		"data-dir":                    {dataDir},
		"listen-peer-urls":            {strings.Join(listenPeer, ",")},
		"listen-client-urls":          {strings.Join(listenClient, ",")},
		"initial-advertise-peer-urls": {peerURL},
		"advertise-client-urls":       {urlOf(spec.AdvertisedAddresses[0].String(), clientPort)},
		"initial-cluster":             {cmp.Or(how.initialCluster, spec.Name+"="+peerURL)},
		"initial-cluster-state":       {how.state()},
		"initial-cluster-token":       {token},
		"client-cert-auth":            {"true"},
		"trusted-ca-file":             {pki(fileCA)},
		"cert-file":                   {pki(fileServer + ".crt")},
		"key-file":                    {pki(fileServer + ".key")},
		"peer-client-cert-auth":       {"true"},
		"peer-trusted-ca-file":        {pki(fileCA)},
		"peer-cert-file":              {pki(filePeer + ".crt")},
		"peer-key-file":               {pki(filePeer + ".key")},
		"tls-min-version":             {"TLS1.3"},
		"logger":                      {"zap"},
		"log-level":                   {"warn"},
	}
	fixed := []string{
		"name", "data-dir", "initial-advertise-peer-urls", "initial-cluster", "initial-cluster-state", "initial-cluster-token", "client-cert-auth", "trusted-ca-file", "cert-file", "key-file",
		"peer-client-cert-auth", "peer-trusted-ca-file", "peer-cert-file", "peer-key-file",
	}
	for flag, values := range spec.ExtraArgs {
		if !slices.Contains(fixed, flag) {
			args[flag] = values.Values
		}
	}
	var out []string
	for _, flag := range slices.Sorted(maps.Keys(args)) {
		for _, value := range args[flag] {
			out = append(out, "--"+flag+"="+value)
		}
	}
	return out
}

func urlOf(host string, port int) string {
	return "https://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// healthy is a read that a majority of the members must agree on.
func (m *Member) healthy(ctx context.Context) error {
	client, err := m.Client(ctx)
	if err != nil {
		return err
	}
	if _, err := client.Get(ctx, "health"); errors.Is(err, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)) {
		return errLearner
	} else if err != nil {
		return fmt.Errorf("read through etcd: %w", err)
	}
	if err := os.Remove(m.marker); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // the marker must not outlive the first success
	}
	return nil
}

// Client talks to this node's member as administrator. It is shared: callers
// don't close it.
func (m *Member) Client(ctx context.Context) (*clientv3.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		return m.client, nil
	}
	client, err := m.dial(ctx, urlOf(m.local, clientPort))
	if err != nil {
		return nil, err
	}
	m.client = client
	return client, nil
}

// patience is short: a member that starts is met as soon as it listens.
var patience = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: time.Second}

// dial makes a client, an administrator, of the members at urls; it connects
// when it is used first. Who called closes it.
func (m *Member) dial(ctx context.Context, urls ...string) (*clientv3.Client, error) {
	tlsConfig, err := m.adminTLS(ctx)
	if err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   urls,
		DialTimeout: 2 * time.Second,
		TLS:         tlsConfig,
		Logger:      zap.NewNop(), // its errors come back to the caller
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: patience, MinConnectTimeout: 2 * time.Second})},
	})
	if err != nil {
		return nil, fmt.Errorf("etcd client: %w", err)
	}
	return client, nil
}

// adminTLS asks for the certificate at every handshake, so that a renewed one
// is used without a new client.
func (m *Member) adminTLS(ctx context.Context) (*tls.Config, error) {
	root, err := safe.StateGetByID[*secrets.EtcdRootSecrets](ctx, m.st, "etcd")
	if err != nil {
		return nil, fmt.Errorf("etcd CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(root.TypedSpec().EtcdCA.Crt) {
		return nil, errors.New("etcd CA holds no certificate")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			lookup, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			res, err := safe.StateGetByID[*secrets.EtcdSecrets](lookup, m.st, "etcd")
			if err != nil {
				return nil, fmt.Errorf("etcd client certificate: %w", err)
			}
			pair, err := tls.X509KeyPair(res.TypedSpec().EtcdAdmin.Crt, res.TypedSpec().EtcdAdmin.Key)
			return &pair, err
		},
	}, nil
}

// Close ends the client. A member of a node lives as long as the node.
func (m *Member) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		_ = m.client.Close() // says only that its context ended
		m.client = nil
	}
}
