package authz

import (
	"context"

	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/resource/meta"
	"github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/state"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"talos/internal/resources/network"
	"talos/internal/resources/object"
)

// ResourceRule guards the resource store as the API shows it: nobody writes,
// readers and operators read what is not sensitive, administrators read
// everything. A type that the definitions lack counts as sensitive. In
// maintenance mode links are not: there is no secret in the machine yet.
func ResourceRule(definitions []object.Definition, opts ...Option) state.FilteringRule {
	o := build(opts)
	open := map[resource.Type]bool{meta.NamespaceType: true, meta.ResourceDefinitionType: true}
	for _, d := range definitions {
		if rd := d.Provider.ResourceDefinition(); rd.Sensitivity == spec.NonSensitive {
			open[rd.Type] = true
		}
	}
	return func(ctx context.Context, access state.Access) error {
		roles := FromContext(ctx).Roles
		switch {
		case !access.Verb.Readonly():
			return status.Errorf(codes.PermissionDenied, "resources are read-only over the API: %s", access.ResourceType)
		case roles.Has(Admin):
			return nil
		case !roles.Any(bit(Operator) | bit(Reader)):
			return status.Errorf(codes.PermissionDenied, "reading %s needs one of %s", access.ResourceType, bit(Admin)|bit(Operator)|bit(Reader))
		case access.ResourceType == network.LinkStatusType && o.maintenance():
			return nil
		case !open[access.ResourceType]:
			return status.Errorf(codes.PermissionDenied, "reading %s needs %s", access.ResourceType, Admin)
		}
		return nil
	}
}
