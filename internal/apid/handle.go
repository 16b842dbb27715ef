package apid

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"talos/internal/audit"
	"talos/internal/authz"
	"talos/internal/proxy"
)

// gate is what stands between a client and the daemons.
type gate struct {
	ring     *keyring
	director *director
	audit    *audit.Log
	calls    calls
}

// handle serves every call there is: who is it, may he, where to, and a line
// that says so.
func (g *gate) handle(_ any, stream grpc.ServerStream) error {
	record := audit.Record{Start: time.Now()}
	call, err := g.admit(stream.Context(), stream, &record)
	if err == nil {
		var end func()
		if end, err = g.calls.begin(who(&record), len(call.Targets)); err == nil {
			defer end()
		}
	}
	if err != nil {
		record.Reason = status.Convert(err).Message()
	} else {
		err = proxy.Serve(stream, call)
	}
	record.Duration = time.Since(record.Start)
	record.Code = status.Code(err).String()
	g.audit.Record(record)
	return err
}

// who is the caller as calls are counted: by his certificate.
func who(record *audit.Record) string {
	if by := record.Print + record.Via + record.Serial; by != "" {
		return by
	}
	return guestPrefix + host(record.Peer)
}

// admit decides on a call; it fills in the record as far as it gets.
func (g *gate) admit(ctx context.Context, stream grpc.ServerStream, record *audit.Record) (*proxy.Call, error) {
	record.Method, _ = grpc.MethodFromServerStream(stream)
	md := proxy.Forwardable(ctx)
	record.Nodes = slices.Concat(md[metadataNode], md[metadataNodes])
	c, remote, local, err := callerFrom(ctx)
	if err != nil {
		return nil, err
	}
	record.Subject, record.Serial, record.Print, record.Peer = c.subject, c.serial, c.print, remote

	id, forwarded := identify(c, remote, md)
	record.Roles = id.Roles.Strings()
	if forwarded {
		record.Subject, record.Serial, record.Print = id.Subject, id.Serial, ""
		record.Via, record.From = c.subject+" "+c.serial, id.Peer
	}
	current := g.ring.now.Load()
	if err := c.check(current, record.Start); err != nil {
		return nil, err
	}
	if err := authz.Check(record.Method, id.Roles, current.maintenance); err != nil {
		return nil, err
	}
	method, _ := authz.Lookup(record.Method)
	to, err := parseDestination(md, method, forwarded)
	if err != nil {
		return nil, err
	}
	targets, forwards := g.director.targets(to, current, local)
	rewrite(md, id)
	if forwards {
		// A node that gets a call with this passes it on to nobody.
		md[metadataProxyFrom] = calledAs(ctx, local)
	}
	return &proxy.Call{Method: record.Method, Unary: !method.Stream, Merged: to.merged, Targets: targets, Metadata: md}, nil
}

// calledAs is what the caller knows us by.
func calledAs(ctx context.Context, local string) []string {
	if values := metadata.ValueFromIncomingContext(ctx, ":authority"); len(values) > 0 {
		return values[:1]
	}
	return []string{local}
}

// identify says whose rights count. A node that may impersonate speaks for
// somebody else in every call: what it does not say of him, he has not, and
// whatever else its own certificate holds gives no right.
func identify(c *caller, remote string, md metadata.MD) (id authz.Identity, forwarded bool) {
	if !c.roles.Has(authz.Impersonator) {
		return authz.Identity{Roles: c.roles, Subject: c.subject, Serial: c.serial, Peer: remote}, false
	}
	said := authz.FromMetadata(md)
	said.Roles = said.Roles.Without(authz.Impersonator)
	return said, true
}

// rewrite turns the caller's metadata into what the daemons get: nothing that
// he wrote in our names is left.
func rewrite(md metadata.MD, id authz.Identity) {
	for key := range md {
		if strings.HasPrefix(key, authz.MetadataPrefix) || key == metadataNode || key == metadataNodes || key == metadataProxyFrom {
			delete(md, key)
		}
	}
	id.Metadata(md)
}
