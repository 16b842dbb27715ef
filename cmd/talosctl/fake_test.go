package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cosi "github.com/cosi-project/runtime/api/v1alpha1"
	"github.com/cosi-project/runtime/pkg/state"
	cosiserver "github.com/cosi-project/runtime/pkg/state/protobuf/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/cluster"
	"talos/api/common"
	"talos/api/configuration"
	"talos/api/integrity"
	"talos/api/machine"
	"talos/api/roster"
	"talos/internal/authz"
	"talos/internal/resources/runtime"
	"talos/internal/resources/v1alpha1"
	"talos/internal/store"
)

// fake answers like a cluster of three nodes behind one endpoint: node01,
// node02 (with more memory) and down, which nobody reaches.
type fake struct {
	machine.UnimplementedMachineServiceServer
	cluster.UnimplementedClusterServiceServer
	roster.UnimplementedRosterServiceServer
	integrity.UnimplementedIntegrityServiceServer
	address string
	state   state.State
	configs *configNodes
	blank   bool // it has no configuration, and nobody needs a certificate

	rebooting sync.RWMutex // the status is not there for a moment: who asks for it waits
}

// startFake serves until the test ends.
func startFake(t *testing.T, conf *tls.Config) *fake {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{address: listener.Addr().String(), state: st, configs: newConfigNodes(t)}
	f.fill(t)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)), grpc.UnaryInterceptor(f.unary), grpc.StreamInterceptor(f.stream))
	machine.RegisterMachineServiceServer(server, f)
	cluster.RegisterClusterServiceServer(server, f)
	roster.RegisterRosterServiceServer(server, f)
	integrity.RegisterIntegrityServiceServer(server, f)
	configuration.RegisterConfigurationServiceServer(server, f.configs)
	cosi.RegisterStateServer(server, cosiserver.NewState(st))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with Stop
	}()
	t.Cleanup(func() { server.Stop(); <-served })
	return f
}

func (f *fake) fill(t *testing.T) {
	t.Helper()
	apid := v1alpha1.NewService("apid")
	apid.TypedSpec().Running, apid.TypedSpec().Healthy = true, true
	status := runtime.NewMachineStatus("machine")
	status.TypedSpec().Stage = runtime.StageRunning
	status.TypedSpec().Status.Ready = true
	if err := errors.Join(f.state.Create(t.Context(), apid), f.state.Create(t.Context(), status)); err != nil {
		t.Fatal(err)
	}
}

// unary refuses writes by readers and everything for the node that is down.
func (f *fake) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if f.blank {
		if err := authz.Check(info.FullMethod, authz.NewRoles("os:reader"), true); err != nil {
			return nil, err
		}
		if target(ctx) != "" {
			return nil, status.Errorf(codes.PermissionDenied, "no request forwarding to %q in maintenance mode", target(ctx))
		}
	}
	if target(ctx) == "down" {
		return nil, status.Error(codes.Unavailable, "node down: connect to 10.5.0.9:50000: no route to host")
	}
	if target(ctx) == "beyond" {
		return nil, status.Error(codes.PermissionDenied, `no request forwarding: "beyond" is another node`)
	}
	if target(ctx) == "stuck" {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if p, _ := peer.FromContext(ctx); strings.HasSuffix(info.FullMethod, "/Reboot") {
		roles := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].Subject.Organization
		if !slices.Contains(roles, "os:admin") {
			return nil, status.Errorf(codes.PermissionDenied, "roles %v: Reboot needs os:admin or os:operator", roles)
		}
	}
	if info.FullMethod == cosi.State_Get_FullMethodName {
		f.rebooting.RLock()
		defer f.rebooting.RUnlock()
	}
	return next(ctx, req)
}

// stream refuses everything for the node that is down.
func (f *fake) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if target(s.Context()) == "down" {
		return status.Error(codes.Unavailable, "node down: connect to 10.5.0.9:50000: no route to host")
	}
	if info.FullMethod == cosi.State_List_FullMethodName {
		f.rebooting.RLock()
		defer f.rebooting.RUnlock()
	}
	return next(srv, s)
}

func target(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md.Get("node"), ",")
}

func (f *fake) Version(context.Context, *emptypb.Empty) (*machine.VersionResponse, error) {
	return &machine.VersionResponse{Messages: []*machine.Version{{
		Version:  &machine.VersionInfo{Tag: "v9.9.9", Sha: "abc", GoVersion: "go1.26", Os: "linux", Arch: "amd64"},
		Platform: &machine.PlatformInfo{Name: "container", Mode: "container"},
	}}}, nil
}

func (f *fake) Memory(ctx context.Context, _ *emptypb.Empty) (*machine.MemoryResponse, error) {
	const mb = 1024
	info := &machine.MemInfo{Memtotal: 7938 * mb, Memfree: 4071 * mb, Shmem: 137 * mb, Buffers: 49 * mb, Cached: 2945 * mb, Memavailable: 7042 * mb}
	if target(ctx) == "node02" {
		info = &machine.MemInfo{Memtotal: 257844 * mb, Memfree: 190796 * mb, Shmem: 18138 * mb, Buffers: 49 * mb, Cached: 52589 * mb, Memavailable: 227492 * mb}
	}
	return &machine.MemoryResponse{Messages: []*machine.Memory{{Meminfo: info}}}, nil
}

func (f *fake) Containers(_ context.Context, r *machine.ContainersRequest) (*machine.ContainersResponse, error) {
	list := []*machine.ContainerInfo{
		{Namespace: "system", Id: "trustd", Image: "talos/trustd", Pid: 1451, Status: "RUNNING"},
		{Namespace: "system", Id: "apid", Image: "talos/apid", Pid: 1461, Status: "RUNNING"},
	}
	if r.GetNamespace() == "k8s.io" {
		list = []*machine.ContainerInfo{
			{Namespace: "k8s.io", Id: "kube-system/coredns:coredns", PodId: "kube-system/coredns", Name: "coredns", Image: "registry.k8s.io/coredns/coredns:v1.15.0", Pid: 2342, Status: "CONTAINER_RUNNING"},
			{Namespace: "k8s.io", Id: "kube-system/coredns", PodId: "kube-system/coredns", Image: "registry.k8s.io/pause:3.10", Status: "SANDBOX_READY"},
		}
	}
	return &machine.ContainersResponse{Messages: []*machine.Container{{Containers: list}}}, nil
}

func (f *fake) ServiceList(context.Context, *emptypb.Empty) (*machine.ServiceListResponse, error) {
	return &machine.ServiceListResponse{Messages: []*machine.ServiceList{{Services: []*machine.ServiceInfo{
		{Id: "apid", State: "Running", Health: &machine.ServiceHealth{Healthy: true}},
		{Id: "etcd", State: "Waiting", Health: &machine.ServiceHealth{Unknown: true}},
		{Id: "kubelet", State: "Failed", Health: &machine.ServiceHealth{LastMessage: "connection refused"}},
	}}}}, nil
}

func (f *fake) ServiceRestart(_ context.Context, r *machine.ServiceRestartRequest) (*machine.ServiceRestartResponse, error) {
	if r.GetId() != "kubelet" {
		return nil, status.Errorf(codes.FailedPrecondition, "service %q can't be restarted over the API", r.GetId())
	}
	return &machine.ServiceRestartResponse{Messages: []*machine.ServiceRestart{{Resp: "restarted"}}}, nil
}

// Logs ends after the last line unless it is followed: then one more comes.
func (f *fake) Logs(r *machine.LogsRequest, s grpc.ServerStreamingServer[common.Data]) error {
	if r.GetId() != "apid" {
		return status.Errorf(codes.NotFound, "logs: no service %q has printed anything", r.GetId())
	}
	lines := []string{"one", "two", "three"}
	if n := int(r.GetTailLines()); n >= 0 && n < len(lines) {
		lines = lines[len(lines)-n:]
	}
	if r.GetFollow() {
		lines = append(lines, "four")
	}
	for _, line := range lines {
		half := len(line) / 2 // chunks do not end where lines do
		for _, chunk := range []string{line[:half], line[half:] + "\n"} {
			if err := s.Send(&common.Data{Bytes: []byte(chunk)}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fake) Kubeconfig(_ *emptypb.Empty, s grpc.ServerStreamingServer[common.Data]) error {
	content := []byte(`apiVersion: v1
kind: Config
clusters: [{name: demo, cluster: {server: "https://10.5.0.1:6443", certificate-authority-data: Q0E=}}]
users: [{name: admin@demo, user: {client-certificate-data: Q1JU, client-key-data: S0VZ}}]
contexts: [{name: admin@demo, context: {cluster: demo, user: admin@demo, namespace: default}}]
current-context: admin@demo
`)
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	archive := tar.NewWriter(zip)
	err := archive.WriteHeader(&tar.Header{Name: "kubeconfig", Mode: 0o600, Size: int64(len(content))})
	if err == nil {
		_, err = archive.Write(content)
	}
	if err := errors.Join(err, archive.Close(), zip.Close()); err != nil {
		return err
	}
	for chunk := range slices.Chunk(buf.Bytes(), 100) {
		if err := s.Send(&common.Data{Bytes: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) HealthCheck(r *cluster.HealthCheckRequest, s grpc.ServerStreamingServer[cluster.HealthCheckProgress]) error {
	for _, text := range []string{
		"waiting for etcd to be healthy: ...",
		"waiting for etcd to be healthy: connection refused",
		"waiting for etcd to be healthy: OK",
		"waiting for all nodes to be ready: ...",
		"waiting for all nodes to be ready: node demo-1 is not ready",
	} {
		if err := s.Send(&cluster.HealthCheckProgress{Message: text}); err != nil {
			return err
		}
	}
	if r.GetWaitTimeout().AsDuration() < time.Second {
		return status.Error(codes.DeadlineExceeded, "all nodes ready: node demo-1 is not ready")
	}
	return s.Send(&cluster.HealthCheckProgress{Message: "waiting for all nodes to be ready: OK"})
}

// Verify finds a changed byte on node02, and is cut short on cut.
func (f *fake) Verify(_ *integrity.VerifyRequest, s grpc.ServerStreamingServer[integrity.Check]) error {
	root := &integrity.Check{Name: "root data", Result: integrity.Check_OK, Detail: "100 bytes"}
	if target(s.Context()) == "node02" {
		root.Result, root.Detail = integrity.Check_FAILED, "block 17 is not what its hash says"
	}
	for _, c := range []*integrity.Check{
		{Name: root.GetName()}, {Name: root.GetName(), BytesDone: 50_000_000, BytesTotal: 100_000_000}, root,
		{Name: "lockdown", Result: integrity.Check_NOT_APPLICABLE, Detail: "none"},
	} {
		if err := s.Send(c); err != nil {
			return err
		}
	}
	if target(s.Context()) == "cut" {
		return status.Error(codes.Unavailable, "the node goes down")
	}
	return nil
}

func (f *fake) Forget(_ context.Context, r *roster.ForgetRequest) (*roster.ForgetResponse, error) {
	if r.GetNode() != "node03" {
		return nil, status.Errorf(codes.NotFound, "there is no node %q", r.GetNode())
	}
	return &roster.ForgetResponse{Messages: []*roster.Forgotten{{Names: []string{"node03", "node03.example.org"}}}}, nil
}

func (f *fake) ApplyConfiguration(ctx context.Context, r *machine.ApplyConfigurationRequest) (*machine.ApplyConfigurationResponse, error) {
	if strings.HasPrefix(target(ctx), "conf-") {
		return f.configs.apply(ctx, r)
	}
	if bytes.Contains(r.GetData(), []byte("bad")) {
		return nil, status.Error(codes.InvalidArgument, "config.yaml:2: machine.bad: unknown key\nconfig.yaml:3: machine.type: expected controlplane or worker")
	}
	details, diff := fmt.Sprintf("would be applied in mode %v", r.GetMode()), ""
	if r.GetDryRun() {
		diff = "+machine.type: worker\n"
		details += "\ninstall on /dev/vda\n" + strings.TrimSpace(diff)
	}
	return &machine.ApplyConfigurationResponse{Messages: []*machine.ApplyConfiguration{{
		Warnings: []string{"machine.sysctls: accepted, not applied yet"}, Mode: r.GetMode(), ModeDetails: details, Diff: diff,
	}}}, nil
}
