//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// host is everything about the machine that a cluster could leave behind.
type host struct {
	processes  map[string]bool // programs of ours, with their pid
	mounts     map[string]bool
	links      map[string]bool
	namespaces map[string]bool // of all processes
	cgroups    map[string]bool
	nftables   map[string]bool
	loops      map[string]bool
	sysctls    map[string]string
	claims     map[string]string // clusters, by id, with their folders
}

// volatile sysctls count or describe; nobody sets them.
var volatile = []string{
	"kernel/random/", "kernel/ns_last_pid", "fs/dentry-state", "fs/inode-", "fs/file-nr", "fs/aio-nr", "fs/quota/", "kernel/pty/nr",
	"net/netfilter/nf_conntrack_count", "kernel/hostname", "net/ipv4/neigh/", "net/ipv6/neigh/", "net/ipv4/conf/", "net/ipv6/conf/",
	"debug/", "kernel/seccomp/actions_logged", "kernel/cap_last_cap", "kernel/keys/", "sunrpc/", "kernel/sched_domain", "fs/mount-max",
	"kernel/tainted", "net/ipv4/tcp_fastopen_key", "kernel/ostype", "vm/stat_refresh", "kernel/perf_event_max_sample_rate",
}

func snapshotHost() host {
	return host{
		processes:  ourProcesses(),
		mounts:     fieldSet("/proc/self/mountinfo", 4),
		links:      entries("/sys/class/net"),
		namespaces: allNamespaces(),
		cgroups:    cgroupDirs(),
		nftables:   nftTables(),
		loops:      boundLoops(),
		sysctls:    sysctls(),
		claims:     claims(),
	}
}

// compare names what is in after and was not before, or changed.
func (h host) compare(after host) []string {
	var left []string
	for _, kind := range []struct {
		name          string
		before, after map[string]bool
	}{
		{"process", h.processes, after.processes}, {"mount", h.mounts, after.mounts}, {"link", h.links, after.links},
		{"namespace", h.namespaces, after.namespaces}, {"cgroup", h.cgroups, after.cgroups}, {"nftables", h.nftables, after.nftables},
		{"loop device", h.loops, after.loops},
	} {
		for _, item := range slices.Sorted(maps.Keys(kind.after)) {
			if !kind.before[item] {
				left = append(left, kind.name+" "+item)
			}
		}
	}
	for name, value := range h.sysctls {
		if now, ok := after.sysctls[name]; ok && now != value {
			left = append(left, fmt.Sprintf("sysctl %s was %q and is %q", name, value, now))
		}
	}
	return left
}

func entries(dir string) map[string]bool {
	set := map[string]bool{}
	list, _ := os.ReadDir(dir) // a folder that is not there has nothing in it
	for _, entry := range list {
		set[entry.Name()] = true
	}
	return set
}

func fieldSet(file string, field int) map[string]bool {
	set := map[string]bool{}
	data, _ := os.ReadFile(file)
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > field {
			set[fields[field]] = true
		}
	}
	return set
}

// ours are the names of programs that a cluster starts on the host.
var ours = []string{
	"machined", "networkd", "timed", "routerd", "apid", "trustd", "sandboxd", "containerd", "containerd-shim", "runc", "etcd", "kube-", "kubelet",
	"coredns", "flannel", "pause", "talosctl", "agnhost",
}

func ourProcesses() map[string]bool {
	set := map[string]bool{}
	for pid, comm := range processes() {
		for _, name := range ours {
			if strings.HasPrefix(comm, name) {
				set[fmt.Sprintf("%s (%d)%s", comm, pid, cluesOf(pid))] = true
			}
		}
	}
	return set
}

// cluesOf says whose a process is: the names of this run's clusters that are in
// its environment, its control groups or its mounts.
func cluesOf(pid int) string {
	var clues []string
	for _, file := range []string{"environ", "cgroup", "mountinfo"} {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file)) // a process that ended needs no explanation
		for _, name := range slices.Concat(own.homes, own.ids) {
			if strings.Contains(string(data), name) {
				clues = append(clues, file+" of "+name)
			}
		}
	}
	return strings.Join(append([]string{""}, clues...), ", ")
}

// processes maps each process id to its name.
func processes() map[int]string {
	out := map[int]string{}
	for name := range entries("/proc") {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if comm, err := os.ReadFile(filepath.Join("/proc", name, "comm")); err == nil {
			out[pid] = strings.TrimSpace(string(comm))
		}
	}
	return out
}

func allNamespaces() map[string]bool {
	set := map[string]bool{}
	for pid := range processes() {
		for _, kind := range []string{"net", "mnt", "pid", "uts", "ipc", "cgroup"} {
			if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err == nil {
				set[link] = true
			}
		}
	}
	return set
}

func cgroupDirs() map[string]bool {
	set := map[string]bool{}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			set[path] = true
		}
		return nil
	})
	return set
}

func nftTables() map[string]bool {
	set := map[string]bool{}
	out, _ := exec.Command("nft", "list", "tables").Output()
	for line := range strings.Lines(string(out)) {
		set[strings.TrimSpace(line)] = true
	}
	return set
}

func boundLoops() map[string]bool {
	set := map[string]bool{}
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			set[strings.TrimSpace(string(data))] = true
		}
	}
	return set
}

func sysctls() map[string]string {
	values := map[string]string{}
	filepath.WalkDir("/proc/sys", func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, "/proc/sys/")
		if err != nil || entry.IsDir() {
			return nil
		}
		for _, prefix := range volatile {
			if strings.HasPrefix(name, prefix) {
				return nil
			}
		}
		if data, err := os.ReadFile(path); err == nil { // some are write-only
			values[name] = strings.TrimSpace(string(data))
		}
		return nil
	})
	return values
}
