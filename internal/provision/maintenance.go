package provision

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"talos/api/machine"
	"talos/client"
	"talos/internal/linux/atomicfile"
	"talos/internal/loop"
)

const (
	consolePace = 500 * time.Millisecond
	applyPause  = 3 * time.Second // after one that failed
	applyTime   = 30 * time.Second
	maxConsole  = 1 << 20 // of a console that is looked through
)

// A node in maintenance mode shows on its console which key it serves with. The
// console reaches the supervisor by no network, so that it tells for sure whom
// the configuration, which holds the cluster's keys, is given to; and it says
// when a node is in that mode, again after its disk was erased.

// maintenance gives nodes in maintenance mode their configuration.
func (s *supervisor) maintenance(ctx context.Context, ready func()) error {
	ready()
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range s.cluster.Nodes {
		g.Go(func() error { return s.attendMaintenance(ctx, n) })
	}
	return g.Wait()
}

// attendMaintenance watches one node's console until ctx ends.
func (s *supervisor) attendMaintenance(ctx context.Context, n Node) error {
	c, log := s.cluster, s.log.With("service", "maintenance", "node", n.Name)
	for last := ""; ; {
		prints, upTo, err := consoleFingerprints(c.LogFile(n.Name), c.applied(n))
		if _, running := c.runner(n).Running(); err == nil && len(prints) > 0 && running {
			if err = c.applyFirst(ctx, n, prints); err == nil {
				err = c.setApplied(n, upTo)
				log.Info("applied the configuration")
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		text := ""
		if err != nil {
			text = "its configuration is not applied yet: " + err.Error()
		}
		if text != last {
			s.setTrouble(n.Name, text)
			if last = text; err != nil {
				log.Warn("apply the configuration", "err", err)
			}
		}
		pause := consolePace
		if err != nil {
			pause = applyPause
		}
		if !loop.Sleep(ctx, pause) {
			return nil
		}
	}
}

// fingerprint is a SHA-256 in base64, as the console shows a key's.
var fingerprint = regexp.MustCompile(`[A-Za-z0-9+/]{43}=`)

// consoleFingerprints reads what looks like a fingerprint from a console's log,
// from an offset on, and returns how far it has read.
func consoleFingerprints(path string, from int64) (prints []string, upTo int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if from > info.Size() { // a new file
		from = 0
	}
	from = max(from, info.Size()-maxConsole)
	data, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	return fingerprints(data), info.Size(), err
}

func fingerprints(console []byte) []string {
	var out []string
	for _, match := range fingerprint.FindAll(console, -1) {
		out = append(out, string(match))
	}
	return out
}

// applied is how much of a node's console was there when its configuration was
// applied last.
func (c *Cluster) applied(n Node) int64 {
	data, err := os.ReadFile(c.appliedFile(n))
	if err != nil {
		return 0
	}
	at, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return at
}

func (c *Cluster) setApplied(n Node, at int64) error {
	return atomicfile.Save(c.appliedFile(n), strconv.AppendInt(nil, at, 10), 0o600)
}

func (c *Cluster) appliedFile(n Node) string {
	return filepath.Join(c.dirs.node(n.Name), "applied")
}

// applyFirst gives a node its first configuration, if the key that it serves
// with is one of those that its console has shown. A node that has one already
// is done.
func (c *Cluster) applyFirst(ctx context.Context, n Node, prints []string) error {
	document, err := os.ReadFile(c.dirs.configFile(n.Name))
	if err != nil {
		return err
	}
	api, err := client.New(ctx, client.Options{Insecure: true, Endpoints: []string{n.apiAddress()}, Fingerprints: prints})
	if err != nil {
		return err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	_, err = api.Machine.ApplyConfiguration(ctx, &machine.ApplyConfigurationRequest{Data: document, Mode: machine.ApplyConfigurationRequest_AUTO})
	if client.KindOf(err) == client.Configured {
		return nil
	}
	return err
}
