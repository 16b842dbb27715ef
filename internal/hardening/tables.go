package hardening

// Enforced returns what the Kernel Self Protection Project recommends and the
// kernel's configuration does not already fix, with the values that Kubernetes
// can live with.
func Enforced() []Sysctl {
	return []Sysctl{
		{Name: "kernel.kptr_restrict", Value: "2", Why: "nobody reads addresses of the kernel"},
		{Name: "kernel.dmesg_restrict", Value: "1", Why: "the kernel log names addresses and hardware: it is for root"},
		{Name: "kernel.perf_event_paranoid", Value: "3", Why: "performance counters are a side channel: they are for root"},
		{Name: "kernel.randomize_va_space", Value: "2", Why: "stack, heap and libraries of a program are somewhere else each time"},
		{Name: "kernel.unprivileged_bpf_disabled", Value: "1", Why: "BPF programs are for root, and that can't be taken back until the next boot"},
		{Name: "kernel.yama.ptrace_scope", Value: "2", Why: "tracing needs CAP_SYS_PTRACE: a process that is taken over can't read its neighbours"},
		{Name: "kernel.sysrq", Value: "0", Why: "a keyboard or serial line asks for nothing; machined's own use of it does not need this"},
		{Name: "kernel.io_uring_disabled", Value: "1",
			Why: "a young interface with a long list of holes is for CAP_SYS_ADMIN; containerd's seccomp profile denies it to pods anyway. 0 in machine.sysctls gives it back"},
		{Name: "net.core.bpf_jit_harden", Value: "2", Why: "constants in compiled BPF are blinded, also in root's"},
		{Name: "dev.tty.ldisc_autoload", Value: "0", Why: "no code for old terminals is brought in by opening one"},
		{Name: "dev.tty.legacy_tiocsti", Value: "0", Why: "nobody types into another's terminal"},
		{Name: "fs.protected_symlinks", Value: "1", Why: "links in shared folders are followed for their owners only"},
		{Name: "fs.protected_hardlinks", Value: "1", Why: "nobody makes a link to a file that is not theirs to write"},
		{Name: "fs.protected_fifos", Value: "2", Why: "a pipe waiting in a shared folder is not opened instead of a new file"},
		{Name: "fs.protected_regular", Value: "2", Why: "the same for a file"},
		{Name: "fs.suid_dumpable", Value: "0", Why: "what a privileged program had in memory is not left on disk"},
		{Name: "vm.mmap_min_addr", Value: "65536", Why: "a null pointer of the kernel points at nothing of a program's"},
		{Name: "vm.unprivileged_userfaultfd", Value: "0", Absent: true,
			Why: "stopping the kernel in the middle of a copy makes races winnable; our kernel has no userfaultfd at all"},
		{Name: "user.max_user_namespaces", Value: "0", Absent: true,
			Why: "root of a namespace of one's own reaches code of the kernel that is meant for root. Pods with hostUsers: false need it: machine.sysctls sets their number"},
	}
}

// Tuned returns what makes a good node of a machine, with no security in it
// that a boot depends on.
func Tuned() []Sysctl {
	return append(kernelDefaults(), networkDefaults()...)
}

func kernelDefaults() []Sysctl {
	const kubelet = "the kubelet demands it with protectKernelDefaults"
	return []Sysctl{
		{Name: "kernel.panic", Value: "10", Why: "ten seconds to read a panic, then the machine starts again; " + kubelet},
		{Name: "kernel.panic_on_oops", Value: "1", Why: "a kernel that broke a rule of its own is not used further; " + kubelet},
		{Name: "kernel.watchdog_thresh", Value: "30", Why: "a processor that stands still for 30 seconds (in the kernel: 60) is a panic; at a third of that, a busy host's virtual machines would be"},
		{Name: "kernel.keys.root_maxkeys", Value: "1000000", Why: "every container has a session keyring; " + kubelet},
		{Name: "kernel.keys.root_maxbytes", Value: "25000000", Why: "25 bytes for each of those keys; " + kubelet},
		{Name: "vm.overcommit_memory", Value: "1", Why: "memory is promised freely and limited by control groups; " + kubelet},
		{Name: "vm.panic_on_oom", Value: "0", Why: "what runs out of memory is ended, not the node; " + kubelet},
		{Name: "kernel.pid_max", Value: "262144", Why: "the 32,768 of the past are few for a node of 110 pods"},
		{Name: "kernel.ctrl-alt-del", Value: "0", Why: "Ctrl-Alt-Del is a signal to machined, which goes down in order"},
		{Name: "fs.aio-max-nr", Value: "1048576", Why: "databases take thousands of these each"},
		{Name: "fs.inotify.max_user_instances", Value: "8192", Why: "root's 128 are shared by all containers that run as root"},
	}
}

func networkDefaults() []Sysctl {
	const redirects = "a router does not tell hosts about other routers, and does not listen to such advice"
	return []Sysctl{
		{Name: "net.ipv4.ip_forward", Value: "1", Why: "pods' packets pass through the node"},
		{Name: "net.ipv6.conf.all.forwarding", Value: "1", Absent: true, Why: "the same for IPv6; it is also for links to come"},
		{Name: "net.ipv6.conf.*.accept_ra", Value: "2", Absent: true,
			Why: "a machine that forwards listens to routers only when told so, on each link"},
		{Name: "net.bridge.bridge-nf-call-iptables", Value: "1", Why: "packets between pods of one bridge pass through the rules of Services"},
		{Name: "net.bridge.bridge-nf-call-ip6tables", Value: "1", Absent: true, Why: "the same for IPv6"},
		{Name: "net.ipv4.conf.*.send_redirects", Value: "0", Why: redirects},
		{Name: "net.ipv4.conf.*.accept_redirects", Value: "0", Why: redirects},
		{Name: "net.ipv6.conf.*.accept_redirects", Value: "0", Absent: true, Why: redirects},
		{Name: "net.ipv4.conf.*.accept_source_route", Value: "0", Why: "a sender does not choose the way of its packets"},
		{Name: "net.ipv4.icmp_ignore_bogus_error_responses", Value: "1", Why: "errors that no standard allows don't fill the log"},
		{Name: "net.ipv4.icmp_echo_ignore_broadcasts", Value: "1", Why: "one ping does not make a whole network answer"},
		{Name: "net.ipv4.ip_local_reserved_ports", Value: "50000-50001", Why: "apid's and trustd's ports are not given to outgoing connections"},
		{Name: "net.ipv4.tcp_keepalive_time", Value: "600", Why: "a dead peer is noticed after ten minutes, before firewalls forget the connection"},
		{Name: "net.ipv4.tcp_keepalive_intvl", Value: "60", Why: "asked again every minute"},
	}
}
