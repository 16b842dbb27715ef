package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/linux/atomicfile"
)

// Kernel settings that are not of a namespace: what a node writes there, it
// writes for the host. They are recorded before the first cluster starts and
// restored after the last one ended.
var (
	procSys  = "/proc/sys"
	runDir   = "/run/talos"
	recorded = []string{
		// Restored first: it sets those of the links.
		"net/ipv4/ip_forward",
		"net/ipv4/conf/*/forwarding",
		"net/ipv4/conf/all/accept_redirects",
		"net/ipv4/conf/default/accept_redirects",
		"net/ipv4/conf/*/rp_filter",
		"net/ipv6/conf/*/forwarding",
		"net/bridge/*",
		"net/core/somaxconn",
		"net/core/rmem_max",
		"net/core/wmem_max",
		"net/netfilter/*",
		"net/ipv4/vs/*",
		"net/ipv4/neigh/default/gc_thresh*",
		"vm/overcommit_memory",
		"vm/overcommit_ratio",
		"vm/panic_on_oom",
		"vm/max_map_count",
		"kernel/panic",
		"kernel/panic_on_oops",
		"kernel/panic_on_warn",
		"kernel/keys/*",
		"kernel/pid_max",
		"kernel/threads-max",
		"kernel/core_pattern",
		"kernel/kptr_restrict",
		"kernel/dmesg_restrict",
		"kernel/perf_event_paranoid",
		"kernel/unprivileged_bpf_disabled",
		"kernel/yama/*",
		"fs/inotify/*",
		"fs/file-max",
		"fs/nr_open",
		"fs/aio-max-nr",
		"fs/protected_*",
	}
	// wanted are set while clusters run: forwarding, and room for the watches of
	// several nodes under one user id. Numbers are only ever raised.
	wanted = map[string]int64{
		"net/ipv4/ip_forward":           1,
		"fs/inotify/max_user_instances": 8192,
		"fs/inotify/max_user_watches":   1048576,
	}
)

// Claim is what one cluster holds of the host.
type Claim struct {
	Dir  string `json:"dir"`  // the cluster's state: a claim without it is void
	CIDR string `json:"cidr"` // its network
}

// book is the record of this machine, shared by all clusters of all users. It
// lies where a restart of the machine loses it, as that restores the settings.
type book struct {
	Values map[string]string `json:"values"` // before the first cluster
	Claims map[string]Claim  `json:"claims"` // by cluster id
}

// Hold records a cluster's claim, before anything is changed for it, and sets
// what nodes need. decide sees the claims of the others and returns this one's.
func Hold(id string, decide func(others map[string]Claim) (Claim, error)) error {
	return withBook(func(b *book) error {
		others := map[string]Claim{}
		for other, c := range b.Claims {
			if other != id {
				others[other] = c
			}
		}
		claim, err := decide(others)
		if err != nil {
			return err
		}
		if b.Values == nil {
			b.Values = snapshot()
		}
		b.Claims[id] = claim
		if err := b.save(); err != nil { // first: what is changed from here on can be undone
			return err
		}
		return raise()
	})
}

// Release ends a cluster's claim and restores the settings when it was the last.
func Release(id string) error {
	return withBook(func(b *book) error {
		delete(b.Claims, id)
		if len(b.Claims) > 0 {
			return b.save()
		}
		if err := restore(b.Values); err != nil {
			return err
		}
		if err := os.Remove(bookPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

func bookPath() string { return filepath.Join(runDir, "clusters.json") }

// withBook runs fn alone on this machine. The lock's folder goes when the last
// claim went.
func withBook(fn func(*book) error) error {
	lock, err := lockDir()
	if err != nil {
		return fmt.Errorf("lock %s: %w", runDir, err)
	}
	defer lock.Close()
	b := &book{}
	data, err := os.ReadFile(bookPath())
	if err == nil {
		err = json.Unmarshal(data, b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", bookPath(), err)
	}
	if b.Claims == nil {
		b.Claims = map[string]Claim{}
	}
	for id, c := range b.Claims {
		if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) {
			delete(b.Claims, id) // removed by hand
		}
	}
	err = fn(b)
	if _, statErr := os.Stat(bookPath()); errors.Is(statErr, fs.ErrNotExist) {
		os.Remove(runDir) // fails when something else is in it, which is fine
	}
	return err
}

// lockDir locks the folder itself, and makes sure that it is the one in place.
func lockDir() (*os.File, error) {
	for {
		if err := os.MkdirAll(runDir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.Open(runDir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another just removed it
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, err
		}
		mine, err1 := f.Stat()
		current, err2 := os.Stat(runDir)
		if err1 == nil && err2 == nil && os.SameFile(mine, current) {
			return f, nil
		}
		f.Close()
	}
}

func (b *book) save() error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Save(bookPath(), data, 0o600)
}

// snapshot reads the recorded settings; what cannot be written is left out.
func snapshot() map[string]string {
	values := map[string]string{}
	for _, pattern := range recorded {
		paths, err := filepath.Glob(filepath.Join(procSys, pattern))
		if err != nil {
			panic(err) // a pattern above is malformed
		}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil || !info.Mode().IsRegular() || info.Mode()&0o200 == 0 {
				continue
			}
			if data, err := os.ReadFile(path); err == nil {
				name, _ := filepath.Rel(procSys, path)
				values[name] = strings.TrimSpace(string(data))
			}
		}
	}
	return values
}

// restore writes back what differs, in the order of the patterns above.
func restore(values map[string]string) error {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var errs []error
	for _, name := range names {
		path := filepath.Join(procSys, name)
		data, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(data)) == values[name] {
			continue // of a link that is gone, or as it was
		}
		if err := os.WriteFile(path, []byte(values[name]), 0); err != nil {
			errs = append(errs, fmt.Errorf("restore kernel setting %s to %q: %w", name, values[name], err))
		}
	}
	return errors.Join(errs...)
}

func rank(name string) int {
	return slices.IndexFunc(recorded, func(pattern string) bool {
		ok, err := filepath.Match(pattern, name)
		return err == nil && ok
	})
}

func raise() error {
	for name, want := range wanted {
		path := filepath.Join(procSys, name)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		have, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err == nil && have >= want {
			continue
		}
		if err := os.WriteFile(path, []byte(strconv.FormatInt(want, 10)), 0); err != nil {
			return fmt.Errorf("set kernel setting %s to %d: %w", name, want, err)
		}
	}
	return nil
}
