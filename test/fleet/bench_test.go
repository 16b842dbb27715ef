//go:build bench

package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
)

// figure is one line of the table; aim is what we want, in the same unit.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Aim   string  `json:"aim,omitempty"`
}

// TestBench measures forwarding and prints a table; with FLEET_OUT it is written
// there too, as JSON. It fails only where something can't be measured.
func TestBench(t *testing.T) {
	var figures []figure
	add := func(name string, value float64, unit, aim string) {
		figures = append(figures, figure{name, value, unit, aim})
	}
	t.Run("fleet", func(t *testing.T) { measureFleet(t, add) })
	t.Run("hop", func(t *testing.T) { measureHop(t, add) })
	fmt.Printf("\n%-60s %10s %-4s %s\n", "FIGURE", "VALUE", "UNIT", "AIM")
	for _, f := range figures {
		fmt.Printf("%-60s %10.2f %-4s %s\n", f.Name, f.Value, f.Unit, f.Aim)
	}
	if out := os.Getenv("FLEET_OUT"); out != "" {
		data, err := json.MarshalIndent(figures, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Clean(out), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// measureFleet calls all nodes at once; the nodes share the machine.
func measureFleet(t *testing.T, add func(string, float64, string, string)) {
	needFiles(t, 4*size)
	ca := newAuthority(t)
	g := startGateway(t, ca, address(0), false)
	f := startFleet(t, ca, 1, size, func(int) kind { return good })
	client := g.dial(t)
	ask := func() time.Duration {
		began := time.Now()
		r, err := client.Version(toAll(t.Context(), f.names), &emptypb.Empty{})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if err := compare(f.names, f, r); err != nil {
			t.Log(err) // on a busy machine a node may be late
		}
		return took
	}
	cold := ask()
	var took []time.Duration
	for range 15 {
		took = append(took, ask())
	}
	add("1,000 nodes in one call, the first time (TLS with each)", cold.Seconds()*1000, "ms", "")
	add("1,000 nodes in one call, p50 of 15", median(took).Seconds()*1000, "ms", "300")
	add("apid's memory then (RSS)", g.memory(t, "VmRSS"), "MB", "64")
	add("of that, its own (anonymous pages)", g.memory(t, "RssAnon"), "MB", "")
	add("apid's memory at most (RSS)", g.memory(t, "VmHWM"), "MB", "")
}

// measureHop calls a node directly and through another one, by turns.
func measureHop(t *testing.T, add func(string, float64, string, string)) {
	ca := newAuthority(t)
	between := startGateway(t, ca, address(2001), false)
	node := startGateway(t, ca, address(2002), true)
	direct, through := node.dial(t), between.dial(t)
	there := metadata.AppendToOutgoingContext(t.Context(), "node", address(2002).String())

	single := compareWays(t, direct, through, there, 1, 12)
	add("version, direct, p50", milliseconds(median(single.direct)), "ms", "")
	add("version, forwarded, p50", milliseconds(median(single.forwarded)), "ms", "")
	add("added by the forwarding hop, p50", milliseconds(median(single.forwarded)-median(single.direct)), "ms", "0.25")
	eight := compareWays(t, direct, through, there, 8, 6)
	add("version, direct, 8 workers", eight.rate(eight.direct), "1/s", "")
	add("version, forwarded, 8 workers", eight.rate(eight.forwarded), "1/s", "")
	add("forwarded to direct, unary", 100*eight.rate(eight.forwarded)/eight.rate(eight.direct), "%", "90")
	var fast, far []time.Duration
	for range 8 {
		fast = append(fast, stream(t, t.Context(), direct))
		far = append(far, stream(t, there, through))
	}
	add("stream, direct", megabytes/median(fast).Seconds(), "MB/s", "")
	add("stream, forwarded", megabytes/median(far).Seconds(), "MB/s", "")
	add("forwarded to direct, stream", 100*median(fast).Seconds()/median(far).Seconds(), "%", "90")
}

// ways are the durations of calls both ways.
type ways struct {
	workers           int
	direct, forwarded []time.Duration
}

// rate is calls per second, from the mean.
func (w ways) rate(all []time.Duration) float64 {
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return float64(w.workers) * float64(len(all)) / sum.Seconds()
}

// compareWays takes turns, so that what else the machine does hits both.
func compareWays(t *testing.T, direct, through machine.MachineServiceClient, there context.Context, workers, turns int) ways {
	w := ways{workers: workers}
	run := func(ctx context.Context, client machine.MachineServiceClient, span time.Duration) []time.Duration {
		var mu sync.Mutex // guards all
		var all []time.Duration
		var wg sync.WaitGroup
		end := time.Now().Add(span)
		for range workers {
			wg.Go(func() {
				var mine []time.Duration
				for began := time.Now(); began.Before(end); began = time.Now() {
					if _, err := client.Version(ctx, &emptypb.Empty{}); err != nil {
						t.Error(err)
						return
					}
					mine = append(mine, time.Since(began))
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, mine...)
			})
		}
		wg.Wait()
		return all
	}
	run(t.Context(), direct, 200*time.Millisecond)
	run(there, through, 200*time.Millisecond)
	for range turns {
		w.direct = append(w.direct, run(t.Context(), direct, 400*time.Millisecond)...)
		w.forwarded = append(w.forwarded, run(there, through, 400*time.Millisecond)...)
	}
	return w
}

const (
	chunks    = 3200
	megabytes = chunks * chunkSize / 1e6
)

func stream(t *testing.T, ctx context.Context, client machine.MachineServiceClient) time.Duration {
	t.Helper()
	began := time.Now()
	logs, err := client.Logs(ctx, &machine.LogsRequest{TailLines: chunks})
	if err != nil {
		t.Fatal(err)
	}
	for range chunks {
		if _, err := logs.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(began)
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
