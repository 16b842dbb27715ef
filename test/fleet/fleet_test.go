//go:build !race

package fleet

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
)

const (
	size    = 1000
	nobody  = size / 100 // nodes that are dead: half of them refuse, half are silent
	laggard = size / 100 // nodes that are slow
)

// behaves spreads the bad ones over the fleet.
func behaves(i int) kind {
	switch {
	case i%100 == 17 && i/100%2 == 0:
		return absent
	case i%100 == 17:
		return dropped
	case i%100 == 63:
		return slow
	}
	return good
}

func needFiles(t testing.TB, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < n {
		t.Skipf("a process may have %d files open, %d are needed", limit.Max, n)
	}
}

func toAll(ctx context.Context, names []string) context.Context {
	md := metadata.MD{"nodes": names}
	return metadata.NewOutgoingContext(ctx, md)
}

// TestThousandNodes asks all nodes in one call, again and again. The nodes that
// are dead or slow are named, the others answer, before the deadline; nothing
// is left behind.
func TestThousandNodes(t *testing.T) {
	needFiles(t, 4*size)
	ca := newAuthority(t)
	g := startGateway(t, ca, address(0), false)
	f := startFleet(t, ca, 1, size, behaves)
	client := g.dial(t)
	ask := func(names []string, bound time.Duration) {
		t.Helper()
		var err error
		for range 10 { // a busy machine may starve both sides for longer than a node is waited for
			if err = askOnce(t.Context(), client, f, names, bound); err == nil {
				return
			}
		}
		t.Fatal(err)
	}
	const patient = time.Minute // what a busy machine may need to meet a thousand nodes
	ask(f.willing(), patient)
	const short = 6 * time.Second // what the slow nodes are slower than
	ask(f.names, short)
	files, goroutines := g.files(t), g.goroutines(t)
	if files < size*9/10 || files > size+100 {
		t.Errorf("apid has %d files open for %d nodes", files, size)
	}
	for range 2 {
		ask(f.names, short)
	}
	if n := g.files(t); n > files+10 {
		t.Errorf("files open grew from %d to %d", files, n)
	}
	if n := g.goroutines(t); n > goroutines+100 {
		t.Errorf("goroutines grew from %d to %d", goroutines, n)
	}
	if mb := g.memory(t, "VmHWM"); mb > 160 { // the figure is in make bench
		t.Errorf("apid took %.0f MB", mb)
	}

	// After a change of certificates none of the old connections stays.
	g.renew(t)
	eventually(t, time.Minute, func() error {
		if n := g.files(t); n > 100 {
			return fmt.Errorf("%d files are open after a change of certificates", n)
		}
		return nil
	})
	ask(f.willing(), patient)
}

func askOnce(ctx context.Context, client machine.MachineServiceClient, f *fleet, names []string, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	r, err := client.Version(toAll(ctx, names), &emptypb.Empty{})
	if err != nil {
		return err
	}
	return compare(names, f, r)
}

// compare holds that every node has one item with what its kind says.
func compare(names []string, f *fleet, r *machine.VersionResponse) error {
	bad := map[kind]*regexp.Regexp{
		absent:  regexp.MustCompile("^Unavailable: .*connection refused"),
		dropped: regexp.MustCompile("^(Unavailable: .*no answer within 3s|DeadlineExceeded: no answer within the caller's deadline)"),
		slow:    regexp.MustCompile("^DeadlineExceeded: no answer within the caller's deadline"),
	}
	if len(r.GetMessages()) != len(names) {
		return fmt.Errorf("%d items for %d nodes", len(r.GetMessages()), len(names))
	}
	var wrong []error
	for i, m := range r.GetMessages() { // in the order of the names
		md := m.GetMetadata()
		said := m.GetVersion().GetTag()
		if md.GetError() != "" {
			said = codes.Code(md.GetStatus().GetCode()).String() + ": " + md.GetError()
		}
		want, isBad := bad[f.kinds[names[i]]]
		if md.GetHostname() == names[i] && (isBad && want.MatchString(said) || !isBad && said == names[i]) {
			continue
		}
		wrong = append(wrong, fmt.Errorf("node %s: %s says %q", names[i], md.GetHostname(), said))
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%d nodes have the wrong item, such as %w", len(wrong), errors.Join(wrong[:min(len(wrong), 3)]...))
	}
	return nil
}
