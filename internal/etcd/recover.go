package etcd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/opencontainers/runtime-spec/specs-go"

	"talos/internal/containers"
	"talos/internal/etcd/backup"
	"talos/internal/layout"
	"talos/internal/loop"
	"talos/internal/resources/etcd"
	"talos/internal/service"
)

// Errors of a recovery that callers tell apart.
var (
	ErrNoUpload = errors.New("there is no snapshot on this node: upload one first (`talosctl bootstrap --recover-from` does)")
	ErrNotReady = errors.New("this node is not ready to recover etcd, it waits")
	ErrRestore  = errors.New("etcd's own tool could not restore the snapshot")
)

// A recovery works in a folder of the data folder, so that what it made gets to
// its place by one rename.
const (
	recoverDir   = "recover"
	uploadFile   = "snapshot"
	restoredDir  = "data"
	restoreLimit = 10 * time.Minute
	readyLimit   = 15 * time.Second
	// revisionBump is more than a cluster writes between a snapshot and its end:
	// who watches the restored one must not take old news for new.
	revisionBump = 1_000_000_000
)

func (m *Member) uploaded() string { return filepath.Join(m.dataDir, recoverDir, uploadFile) }

// Snapshot streams the database with etcd's checksum after it. All that was
// acknowledged before is in it, also where this node's member lagged behind.
func (m *Member) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	client, err := m.Client(ctx)
	if err != nil {
		return nil, err
	}
	// A read that a majority agrees on waits until this member has caught up.
	if _, err := client.Get(ctx, "health"); err != nil {
		return nil, fmt.Errorf("snapshot of etcd: read through this node's member: %w; where the majority is lost, copy /var/lib/etcd/member/snap/db", err)
	}
	answer, err := client.SnapshotWithVersion(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot of etcd: %w", err)
	}
	return answer.Snapshot, nil
}

// Upload keeps a snapshot for Recover, in place of an earlier one. It refuses
// one that a node can have no use for.
func (m *Member) Upload(ctx context.Context, from io.Reader) error {
	if err := m.mayRecover(ctx); err != nil {
		return err
	}
	folder := filepath.Dir(m.uploaded())
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(m.uploaded(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("keep the snapshot: %w", errors.Join(err, os.Remove(m.uploaded())))
	}
	return nil
}

// mayRecover is mayFound, once the node has what it needs to ask the others. A
// bootstrap needs not wait: its promise is weighed again before the start.
func (m *Member) mayRecover(ctx context.Context) error {
	for end := time.Now().Add(readyLimit); ; {
		if err := m.mayFound(ctx); err != nil {
			return err
		}
		_, reason, err := m.missing(ctx)
		switch {
		case err != nil:
			return err
		case reason == "":
			return m.mayFound(ctx)
		case time.Now().After(end) || !loop.Sleep(ctx, factsPeriod):
			return fmt.Errorf("%w %s", ErrNotReady, reason)
		}
	}
}

// Recover makes this member the first of a new cluster that has the contents of
// the uploaded snapshot. Nothing is changed before that has been found whole
// and could be restored; unchecked takes one without a checksum.
func (m *Member) Recover(ctx context.Context, unchecked bool) error {
	if err := m.mayRecover(ctx); err != nil {
		return err
	}
	if !exists(m.uploaded()) {
		return ErrNoUpload
	}
	if err := m.hold(true); err != nil {
		return err
	}
	defer func() { _ = m.hold(false) }() // it can only be taken
	if err := backup.VerifyFile(m.uploaded(), unchecked); err != nil {
		return errors.Join(err, os.RemoveAll(filepath.Dir(m.uploaded())))
	}
	restored := filepath.Join(m.dataDir, recoverDir, restoredDir)
	if err := os.RemoveAll(restored); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	if err := m.restore(ctx, restored, unchecked); err != nil {
		return errors.Join(err, os.RemoveAll(restored))
	}
	// From here on the promise is kept, whatever happens.
	if err := os.Rename(filepath.Join(restored, "member"), filepath.Join(m.dataDir, "member")); err != nil {
		return fmt.Errorf("put the restored data in place: %w", err)
	}
	m.wake()
	return errors.Join(syncFolder(m.dataDir), os.RemoveAll(filepath.Dir(m.uploaded())))
}

// hold keeps the member from starting while its data is made.
func (m *Member) hold(on bool) error {
	m.acting.Lock()
	defer m.acting.Unlock()
	if on && (m.recovering || m.starting) {
		return fmt.Errorf("%w: it is starting now", ErrAlreadyBootstrapped)
	}
	m.recovering = on
	return nil
}

// restore runs etcd's tool on the snapshot, as etcd's user and in a container:
// whatever the bytes hold is read there.
func (m *Member) restore(ctx context.Context, into string, unchecked bool) error {
	res, err := safe.StateGetByID[*etcd.EtcdSpec](ctx, m.st, SpecID)
	if err != nil {
		return fmt.Errorf("etcd spec: %w", err)
	}
	cfg, err := m.config(ctx)
	if err != nil {
		return err
	}
	folder := filepath.Dir(m.uploaded())
	for _, path := range []string{m.dataDir, folder, m.uploaded()} {
		if err := os.Chown(path, m.uid, m.uid); err != nil {
			return err
		}
	}
	spec := res.TypedSpec()
	peerURL := urlOf(spec.AdvertisedAddresses[0].String(), peerPort)
	args := []string{
		"/usr/local/bin/etcdutl", "snapshot", "restore", m.uploaded(), "--data-dir=" + into, "--name=" + spec.Name,
		"--initial-cluster=" + spec.Name + "=" + peerURL, "--initial-advertise-peer-urls=" + peerURL,
		"--initial-cluster-token=" + newToken(cfg.Cluster.ID), fmt.Sprintf("--bump-revision=%d", revisionBump), "--mark-compacted",
	}
	if unchecked {
		args = append(args, "--skip-hash-check")
	}
	var said bytes.Buffer
	err = m.run(ctx, service.ContainerSpec{
		ID: "etcd-recover", Image: spec.Image, Args: args, UID: uint32(m.uid), GID: uint32(m.uid),
		Mounts: []specs.Mount{bind(m.dataDir, "rw")}, // all of it: in the image that folder is root's
		Cgroup: "/podruntime/etcd", OOMScoreAdj: -998,
	}, &said)
	if err != nil {
		return fmt.Errorf("%w: %w: %s", ErrRestore, err, reason(said.String()))
	}
	return nil
}

// newToken tells a cluster from every other that the same machines ever form:
// a node that still has the data of an earlier one must not take part.
func newToken(clusterID string) string { return clusterID + "-" + rand.Text() }

// reason is where a program says why it failed: its last line, or, when it
// broke on what it read, the first of the panic.
func reason(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		for _, mark := range []string{"panic: ", "fatal error: ", "unexpected fault address"} {
			if strings.HasPrefix(line, mark) {
				return line
			}
		}
	}
	return lines[len(lines)-1]
}

// runContainer runs one to its end.
func runContainer(ctx context.Context, spec service.ContainerSpec, out io.Writer) error {
	once := service.Container{Instance: service.CRI, Spec: func(context.Context) (service.ContainerSpec, error) { return spec, nil }}
	return once.Run(ctx, out, func(int) {})
}

// fetchImage makes an image be there.
func fetchImage(ctx context.Context, ref string) error {
	conn, err := containers.Connect(containers.CRI)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = containers.Namespaced(ctx, layout.SystemNamespace)
	if _, err := conn.GetImage(ctx, ref); err == nil {
		return nil
	}
	_, err = containers.Pull(ctx, conn, ref)
	return err
}
