// Package machine serves the node's own API: what the machine is, what runs on
// it, its logs and files, its configuration and its power.
//
// It decodes, makes one call into the package that owns the matter, and
// encodes; who may call what is decided before it, by package authz. A Server
// is safe for concurrent use.
package machine

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"sync/atomic"

	"github.com/cosi-project/runtime/pkg/state"
	"github.com/prometheus/procfs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/cluster"
	"talos/api/configuration"
	"talos/api/inspect"
	integrityapi "talos/api/integrity"
	"talos/api/machine"
	"talos/api/roster"
	"talos/api/storage"
	"talos/internal/bootlog"
	"talos/internal/configstore"
	"talos/internal/containers"
	"talos/internal/etcd"
	"talos/internal/sequence"
	"talos/internal/service"
	"talos/internal/version"
)

// Services controls what runs on the node.
type Services interface {
	List() []service.Status
	Get(id string) (service.Status, error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string) error
	Restart(ctx context.Context, id string) error
}

// Logs are what services printed.
type Logs interface {
	IDs() []string
	Reader(ctx context.Context, id string, follow bool, tail int) (io.ReadCloser, error)
}

// Power takes the machine down, in an orderly way. Begin returns when the
// sequence has begun, with the id that its events carry.
type Power interface {
	Begin(ctx context.Context, r sequence.Request) (actor string, err error)
}

// Options are what the API needs of the rest of machined.
type Options struct {
	State      state.State
	Services   Services
	Logs       Logs
	Boots      *bootlog.Book // earlier boots; nil where they leave nothing behind
	Containers *containers.Client
	Config     *configstore.Store
	Etcd       *etcd.Member
	Roster     Roster
	Integrity  Integrity
	Power      Power
	Events     *Events
	// Setup says whether the machine has a place for what it keeps; nil on nodes
	// that have one always.
	Setup interface{ Done() bool }
	// Graph tells which controllers read and write what.
	Graph func() ([]*inspect.ControllerDependencyEdge, error)
	// Platform is "container", "metal" or "nocloud".
	Platform string
	// UserDisks finds the disks that a reset names, by what tells them from others
	// after a restart too, and says whether a path is on one of them. It is nil in
	// container mode.
	UserDisks func(ctx context.Context, names []string, path string) (marks []string, holds bool, err error)
	Log       *slog.Logger
}

// Server implements the services that machined answers for.
type Server struct {
	machine.UnimplementedMachineServiceServer
	cluster.UnimplementedClusterServiceServer
	inspect.UnimplementedInspectServiceServer
	roster.UnimplementedRosterServiceServer
	Options

	fileCalls         atomic.Int32 // now looking into file systems
	procPath, sysPath string
	proc              procfs.FS
}

// New makes the server.
func New(opts Options) (*Server, error) {
	s := &Server{Options: opts, procPath: "/proc", sysPath: "/sys"}
	proc, err := procfs.NewFS(s.procPath)
	s.proc = proc
	return s, err
}

// Register makes srv answer for this node.
func (s *Server) Register(srv *grpc.Server) {
	machine.RegisterMachineServiceServer(srv, s)
	cluster.RegisterClusterServiceServer(srv, s)
	inspect.RegisterInspectServiceServer(srv, s)
	roster.RegisterRosterServiceServer(srv, s)
	integrityapi.RegisterIntegrityServiceServer(srv, newIntegrityServer(s.Integrity))
	storage.RegisterStorageServiceServer(srv, storageServer{state: s.State})
	configuration.RegisterConfigurationServiceServer(srv, NewConfigurations(s.Config))
}

// Version says what runs here.
func (s *Server) Version(context.Context, *emptypb.Empty) (*machine.VersionResponse, error) {
	return &machine.VersionResponse{Messages: []*machine.Version{{
		Version: &machine.VersionInfo{
			Tag: version.Tag, Sha: version.SHA, Built: version.Built,
			GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
		},
		Platform: &machine.PlatformInfo{Name: s.Platform, Mode: s.Platform},
		Features: &machine.FeaturesInfo{Rbac: true},
	}}}, nil
}

// Hostname is the node's name in its own UTS namespace.
func (s *Server) Hostname(context.Context, *emptypb.Empty) (*machine.HostnameResponse, error) {
	name, err := hostname()
	return &machine.HostnameResponse{Messages: []*machine.Hostname{{Hostname: name}}}, err
}

// ControllerRuntimeDependencies tells which controllers read and write what.
func (s *Server) ControllerRuntimeDependencies(context.Context, *emptypb.Empty) (*inspect.ControllerRuntimeDependenciesResponse, error) {
	edges, err := s.Graph()
	if err != nil {
		return nil, err
	}
	return &inspect.ControllerRuntimeDependenciesResponse{Messages: []*inspect.ControllerRuntimeDependency{{Edges: edges}}}, nil
}
