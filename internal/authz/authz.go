// Package authz says who may call what: the roles, the table of methods with
// the roles that each asks for, how an identity travels from apid to the
// daemons behind it, and which resources only an administrator may read.
//
// Whatever the table does not name is denied. apid decides first, from the
// client's certificate; the daemons behind routerd decide again, from the
// metadata that apid wrote, so they must listen to routerd's user alone
// (internal/linux/peercred). The package authenticates nobody and keeps no
// state; everything in it is safe for concurrent use.
package authz

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
)

// Role is a right that a client certificate carries in its Organization.
type Role string

// The roles there are.
const (
	Admin         Role = "os:admin"
	Operator      Role = "os:operator"
	Reader        Role = "os:reader"
	EtcdBackup    Role = "os:etcd:backup"
	MetaWriter    Role = "os:meta:writer"
	ImageVerifier Role = "os:image:verifier"
	Impersonator  Role = "os:impersonator" // may speak for somebody else; gives no right of its own
)

// all orders the roles: the position is the bit in Roles.
var all = [...]Role{Admin, Operator, Reader, EtcdBackup, MetaWriter, ImageVerifier, Impersonator}

// Roles is a set of roles.
type Roles uint8

// NewRoles makes a set of names; names that are no role are left out.
func NewRoles(names ...string) Roles {
	var set Roles
	for _, name := range names {
		set |= bit(Role(name))
	}
	return set
}

func bit(r Role) Roles {
	for i, known := range all {
		if known == r {
			return 1 << i
		}
	}
	return 0
}

// Has tells whether r is in the set.
func (s Roles) Has(r Role) bool { return s&bit(r) != 0 }

// Any tells whether the sets share a role.
func (s Roles) Any(other Roles) bool { return s&other != 0 }

// Without returns the set less r.
func (s Roles) Without(r Role) Roles { return s &^ bit(r) }

// Strings lists the roles.
func (s Roles) Strings() []string {
	var names []string
	for i, r := range all {
		if s&(1<<i) != 0 {
			names = append(names, string(r))
		}
	}
	return names
}

// String shows the roles with commas between.
func (s Roles) String() string { return strings.Join(s.Strings(), ",") }

// Metadata that apid writes for the daemons behind it. Whatever a client sent
// under these names is dropped, save that an impersonator is believed.
const (
	MetadataRole    = "talos-role" // one value per role
	MetadataSubject = "talos-subject"
	MetadataSerial  = "talos-serial"
	MetadataPeer    = "talos-peer"
	MetadataPrefix  = "talos-" // of all of them
)

// Identity is who asks.
type Identity struct {
	Roles   Roles
	Subject string // common name of the certificate
	Serial  string // of the certificate, in hexadecimal
	Peer    string // address the call came from, as apid saw it
}

// Metadata writes the identity into md, over what was there.
func (id Identity) Metadata(md metadata.MD) {
	md[MetadataRole] = id.Roles.Strings()
	md[MetadataSubject] = []string{id.Subject}
	md[MetadataSerial] = []string{id.Serial}
	md[MetadataPeer] = []string{id.Peer}
}

// FromMetadata reads what Metadata wrote.
func FromMetadata(md metadata.MD) Identity {
	first := func(key string) string {
		if values := md[key]; len(values) > 0 {
			return values[0]
		}
		return ""
	}
	return Identity{
		Roles:   NewRoles(md[MetadataRole]...),
		Subject: first(MetadataSubject), Serial: first(MetadataSerial), Peer: first(MetadataPeer),
	}
}

type contextKey struct{}

// NewContext returns a context that carries the identity.
func NewContext(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// FromContext returns who asks; without an interceptor nobody does, with no
// role.
func FromContext(ctx context.Context) Identity {
	id, _ := ctx.Value(contextKey{}).(Identity)
	return id
}
