package machine

import (
	"context"
	"encoding/base64"
	"strings"
	"time"
	"unicode"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/api/machine"
	"talos/client/talosconfig"
	"talos/internal/authz"
	"talos/internal/pki"
	"talos/internal/resources/network"
	"talos/internal/resources/secrets"
)

// Bounds of a client certificate's life.
const (
	defaultClientTTL = 365 * 24 * time.Hour
	maxClientTTL     = 10 * defaultClientTTL
	maxNameLength    = 64 // of a common name: RFC 5280, ub-common-name
)

// GenerateClientConfiguration issues a client certificate with the roles that
// are asked for, never more than the caller has.
func (s *Server) GenerateClientConfiguration(ctx context.Context, req *machine.GenerateClientConfigurationRequest) (*machine.GenerateClientConfigurationResponse, error) {
	roles := req.GetRoles()
	if len(roles) == 0 {
		return nil, status.Error(codes.InvalidArgument, "client configuration: name at least one role, such as os:reader")
	}
	for _, role := range roles {
		if known := authz.NewRoles(role); known == 0 || known.Has(authz.Impersonator) {
			return nil, status.Errorf(codes.InvalidArgument, "client configuration: %q is not a role that clients have", role)
		}
	}
	ttl := defaultClientTTL
	if req.GetCrtTtl() != nil {
		ttl = req.GetCrtTtl().AsDuration()
	}
	if ttl <= 0 || ttl > maxClientTTL {
		return nil, status.Errorf(codes.InvalidArgument, "client configuration: a lifetime of %v is not between 0 and %v", ttl, maxClientTTL)
	}
	root, err := safe.StateGetByID[*secrets.OSRootSecrets](ctx, s.State, "os")
	if state.IsNotFoundError(err) || err == nil && (root.TypedSpec().IssuingCA == nil || len(root.TypedSpec().IssuingCA.Key) == 0) {
		return nil, status.Error(codes.FailedPrecondition, "client configuration: this node does not hold the CA's key; ask a control plane node")
	} else if err != nil {
		return nil, err
	}
	ca, err := pki.ParseCA(root.TypedSpec().IssuingCA.Crt, root.TypedSpec().IssuingCA.Key)
	if err != nil {
		return nil, err
	}
	name := req.GetName()
	if name == "" {
		name = strings.Join(roles, ",")
	}
	if len(name) > maxNameLength || strings.ContainsFunc(name, unicode.IsControl) {
		return nil, status.Errorf(codes.InvalidArgument, "client configuration: a name has at most %d characters, none of them a control character", maxNameLength)
	}
	pair, err := ca.Issue(pki.Template{CommonName: name, Organization: roles, Client: true, Lifetime: ttl}, time.Now())
	if err != nil {
		return nil, err
	}
	file, err := s.talosconfig(ctx, ca.CrtPEM, pair)
	if err != nil {
		return nil, err
	}
	return &machine.GenerateClientConfigurationResponse{Messages: []*machine.GenerateClientConfiguration{{
		Ca: ca.CrtPEM, Crt: pair.Crt, Key: pair.Key, Talosconfig: file,
	}}}, nil
}

// talosconfig is a client's file with one context, named after the cluster,
// whose endpoint is this node.
func (s *Server) talosconfig(ctx context.Context, ca []byte, pair pki.Pair) ([]byte, error) {
	name := "talos"
	if cfg := s.Config.Active(); cfg != nil && cfg.Cluster.ClusterName != "" {
		name = cfg.Cluster.ClusterName
	}
	var endpoints []string
	addresses, err := safe.StateGetByID[*network.NodeAddress](ctx, s.State, "routed")
	if err == nil {
		for _, a := range addresses.TypedSpec().Addresses {
			endpoints = append(endpoints, a.Addr().String())
		}
	} else if !state.IsNotFoundError(err) {
		return nil, err
	}
	encode := base64.StdEncoding.EncodeToString
	return yaml.Marshal(&talosconfig.Config{
		Context: name,
		Contexts: map[string]*talosconfig.Context{name: {
			Endpoints: endpoints, CA: encode(ca), Crt: encode(pair.Crt), Key: encode(pair.Key),
		}},
	})
}
