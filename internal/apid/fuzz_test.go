package apid

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/internal/authz"
	"talos/internal/proxy"
	"talos/internal/resources/cluster"
)

// metadataOf reads lines of "key value" as metadata, in the lower case in which
// HTTP/2 has them.
func metadataOf(text string) metadata.MD {
	md := metadata.MD{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		md.Append(key, value)
	}
	return md
}

// FuzzMetadata gives what callers send to everything that reads it: targets,
// identity, and what goes on to the next server.
func FuzzMetadata(f *testing.F) {
	for _, text := range []string{
		"", "node 10.5.0.2", "nodes a\nnodes B.\nnodes a", "node a\nnodes b", "node a\nnode b", "node ", "nodes [fd00::1%eth0]",
		"node 0.0.0.0\nproxyfrom x", "talos-role os:admin\ntalos-subject root\nx-mine kept", "Talos-Role os:admin", "nodes 127.0.0.1\ntalos-role os:impersonator",
	} {
		f.Add(text, true)
		f.Add(text, false)
	}
	peers := proxy.NewPeers(nil, 1) // never called: nothing connects here
	f.Cleanup(peers.Close)
	own, others := &self{}, &members{}
	own.setHostname("cp-1", "example.org")
	own.setAddresses([]netip.Prefix{netip.MustParsePrefix("10.5.0.2/24")})
	others.set([]*cluster.MemberSpec{
		{Hostname: "a", Addresses: []netip.Addr{netip.MustParseAddr("10.5.0.3")}}, {Hostname: "b", Addresses: []netip.Addr{netip.MustParseAddr("10.5.0.4")}},
		{Hostname: "b", Addresses: []netip.Addr{netip.MustParseAddr("10.5.0.5")}},
	})
	local := &proxy.Backend{}
	d := &director{self: own, members: others, local: local, peers: peers}
	forwards, worker := &keys{client: &tls.Config{}}, &keys{}
	methods := []authz.Method{{}, {Wrapped: true}, {Wrapped: true, Stream: true}}
	f.Fuzz(func(t *testing.T, text string, impersonator bool) {
		md := metadataOf(text)
		c := &caller{roles: authz.NewRoles("os:reader"), subject: "alice", serial: "a1"}
		if impersonator {
			c.roles = authz.NewRoles("os:impersonator", "os:admin")
		}
		id, forwarded := identify(c, "192.0.2.1:1", md)
		checkIdentity(t, id, md, forwarded, impersonator)
		for _, method := range methods {
			to, err := parseDestination(md, method, forwarded)
			if err != nil {
				if status.Code(err) != codes.InvalidArgument {
					t.Fatalf("parseDestination = %v", err)
				}
				continue
			}
			checkDestination(t, to, md, method, forwarded)
			for _, k := range []*keys{forwards, worker} {
				targets, remote := d.targets(to, k, "10.5.0.2:50000")
				if k.client == nil && remote || len(targets) != max(len(to.names), 1) {
					t.Fatalf("targets(%q) = %d, remote %v", to.names, len(targets), remote)
				}
				for i, target := range targets {
					if (target.Server == nil) == (target.Err == nil) || len(to.names) > 0 && target.Name != to.names[i] {
						t.Fatalf("target %d of %q = %+v", i, to.names, target)
					}
				}
			}
		}
		rewrite(md, id)
		for key, values := range md {
			switch {
			case key == metadataNode, key == metadataNodes, key == metadataProxyFrom:
				t.Fatalf("%s goes on: %q", key, values)
			case strings.HasPrefix(key, authz.MetadataPrefix) && !slices.Contains([]string{authz.MetadataRole, authz.MetadataSubject, authz.MetadataSerial, authz.MetadataPeer}, key):
				t.Fatalf("%s goes on: %q", key, values)
			}
		}
		if got := authz.FromMetadata(md); got != id {
			t.Fatalf("the next server reads %+v of %+v", got, id)
		}
	})
}

// checkIdentity: nobody but an impersonator is somebody else, and no one is an
// impersonator to the daemons.
func checkIdentity(t *testing.T, id authz.Identity, md metadata.MD, forwarded, impersonator bool) {
	t.Helper()
	switch {
	case forwarded != impersonator, id.Roles.Has(authz.Impersonator):
		t.Fatalf("identity = %+v, forwarded %v", id, forwarded)
	case !impersonator && (id.Subject != "alice" || id.Serial != "a1" || id.Roles != authz.NewRoles("os:reader")):
		t.Fatalf("a reader becomes %+v", id)
	case impersonator && len(md[authz.MetadataRole]) == 0 && id.Roles != 0:
		t.Fatalf("a forwarded call without roles has %v", id.Roles)
	}
}

func checkDestination(t *testing.T, to destination, md metadata.MD, method authz.Method, forwarded bool) {
	t.Helper()
	switch {
	case forwarded && (len(to.names) > 0 || to.merged):
		t.Fatalf("a forwarded call goes on to %q", to.names)
	case len(to.names) > maxNodes, to.merged && !method.Wrapped, !to.merged && len(to.names) > 1:
		t.Fatalf("destination = %d names, merged %v, of %+v", len(to.names), to.merged, method)
	case !forwarded && len(to.names) != len(md[metadataNode])+len(md[metadataNodes]):
		t.Fatalf("%d names of %v", len(to.names), md)
	}
	for _, name := range to.names {
		if name == "" || len(name) > maxName || !utf8.ValidString(name) {
			t.Fatalf("name %q", name)
		}
	}
}
