package main

import (
	"context"
	"fmt"

	"github.com/cosi-project/runtime/pkg/state"

	runtimeres "talos/internal/resources/runtime"
)

// bootID is the id of the one resource with the boot's id.
const bootID = "boot"

// publishFacts makes resources of what does not change while the node is up.
func (n *node) publishFacts(ctx context.Context, st state.State) error {
	id := runtimeres.NewBootID(bootID)
	id.TypedSpec().BootID = n.id
	if n.machine != nil {
		id.TypedSpec().BootID = n.machine.BootID()
	}
	if err := st.Create(ctx, id); err != nil {
		return fmt.Errorf("publish the boot's id: %w", err)
	}
	if n.boots == nil {
		return nil
	}
	records := n.boots.Records()
	for i, r := range records {
		res := runtimeres.NewBootRecord(fmt.Sprint(r.Number))
		*res.TypedSpec() = runtimeres.BootRecordSpec{
			Boot: int32(i + 1 - len(records)), BootID: r.ID, Version: r.Version, Started: r.Started, Ended: r.Ended,
		}
		if err := st.Create(ctx, res); err != nil {
			return fmt.Errorf("publish boot %d: %w", r.Number, err)
		}
	}
	return nil
}
