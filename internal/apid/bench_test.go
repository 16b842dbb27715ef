package apid

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
)

// BenchmarkVersion is one small call through apid, routerd and a machined
// that answers at once, all in this process, client included. With several
// workers the figure per operation is wall time over all of them.
func BenchmarkVersion(b *testing.B) {
	for _, workers := range []int{1, 8} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			n := newNode(b)
			client := n.client(b, "os:reader")
			if _, err := client.Version(b.Context(), &emptypb.Empty{}); err != nil {
				b.Fatal(err)
			}
			took := make([][]time.Duration, workers)
			b.ReportAllocs()
			before := processorTime(b)
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() { took[w] = call(b, client, b.N/workers+1) })
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
			all := slices.Concat(took...)
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "calls/s")
		})
	}
}

func call(b *testing.B, client machine.MachineServiceClient, count int) []time.Duration {
	took := make([]time.Duration, 0, count)
	for range count {
		began := time.Now()
		if _, err := client.Version(b.Context(), &emptypb.Empty{}); err != nil {
			b.Error(err)
			return append(took, time.Since(began))
		}
		took = append(took, time.Since(began))
	}
	return took
}

// processorTime is what this process has used: the figure that a busy machine
// does not spoil.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
