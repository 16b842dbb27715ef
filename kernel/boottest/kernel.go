package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"talos/internal/cmdline"
	"talos/internal/hardening"
)

func kernelChecks() []check {
	return []check{
		{"control groups", controlGroups},
		{"namespaces", exist("/proc/self/ns/cgroup", "/proc/self/ns/ipc", "/proc/self/ns/mnt", "/proc/self/ns/net",
			"/proc/self/ns/pid", "/proc/self/ns/time", "/proc/self/ns/user", "/proc/self/ns/uts")},
		{"pressure", exist("/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io")},
		{"seccomp", holds("/proc/sys/kernel/seccomp/actions_avail", "kill_process", "errno", "user_notif", "log", "allow")},
		{"types of the kernel", types},
		{"bpf", bpf},
		{"security modules", securityModules},
		{"landlock", landlock},
		{"lockups", lockups},
		{"pstore", func() error { return mount("pstore", "/sys/fs/pstore", "pstore", "") }},
		{"watchdog", exist("/dev/watchdog", "/dev/watchdog0")},
		{"consoles", exist("/dev/ttyS0", "/dev/tty0", "/dev/hvc0")},
		{"entropy", holds("/sys/class/misc/hw_random/rng_available", "virtio_rng.0")},
		{"enforced sysctls", func() error { return hardening.Apply("/proc/sys") }},
		{"tuned sysctls", func() error { return hardening.Defaults("/proc/sys") }},
		{"enforced arguments", enforcedArguments},
		{"page tables in emulation", pageTables},
		{"users have no namespaces", noUserNamespaces},
		{"nothing of the kernel's memory", absent("/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/proc/modules", "/dev/cpu/0/msr",
			"/proc/sys/kernel/modprobe", "/dev/snapshot", "/dev/ptyp0")},
		{"debugfs", noDebugFS},
		{"old system calls", func() error {
			return errors.Join(noCall(unix.SYS_KEXEC_LOAD)(), noCall(unix.SYS_MODIFY_LDT)(), noCall(unix.SYS_INIT_MODULE)(),
				noCall(unix.SYS_FINIT_MODULE)(), noCall(unix.SYS_USERFAULTFD)(), noCall(unix.SYS_IOPERM)(), noCall(unix.SYS_USELIB)())
		}},
		{"kexec of what is no kernel", unsignedKexec},
	}
}

func controlGroups() error {
	const root = "/sys/fs/cgroup"
	if err := mount("cgroup2", root, "cgroup2", "nsdelegate,memory_recursiveprot"); err != nil {
		return err
	}
	controllers := []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}
	if err := holds(root+"/cgroup.controllers", controllers...)(); err != nil {
		return err
	}
	enable := "+" + strings.Join(controllers, " +")
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte(enable), 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(root+"/pod", 0o755); err != nil {
		return err
	}
	return exist(root+"/pod/cpu.max", root+"/pod/cpu.pressure", root+"/pod/cpuset.cpus", root+"/pod/io.max", root+"/pod/io.latency",
		root+"/pod/memory.max", root+"/pod/memory.swap.max", root+"/pod/pids.max", root+"/pod/hugetlb.2MB.max", root+"/pod/cgroup.freeze", root+"/pod/cgroup.kill")()
}

// types looks for the kernel's BTF, which starts with a magic number.
func types() error {
	data, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		return err
	}
	if len(data) < 1<<20 || data[0] != 0x9f || data[1] != 0xeb {
		return fmt.Errorf("%d bytes that start with % x", len(data), data[:min(2, len(data))])
	}
	return nil
}

// bpf loads the smallest program there is: r0 = 0, exit.
func bpf() error {
	if err := mount("bpf", "/sys/fs/bpf", "bpf", ""); err != nil {
		return err
	}
	if err := holds("/proc/sys/net/core/bpf_jit_enable", "1")(); err != nil {
		return err
	}
	return loadProgram()
}

// securityModules asks for them in the order in which they are asked.
func securityModules() error {
	if err := mount("securityfs", "/sys/kernel/security", "securityfs", ""); err != nil {
		return err
	}
	const want = "lockdown,capability,yama,landlock,bpf"
	if got, err := os.ReadFile("/sys/kernel/security/lsm"); err != nil || string(got) != want {
		return fmt.Errorf("they are %q, want %q (%v)", got, want, err)
	}
	return exist("/sys/kernel/security/lockdown")()
}

func landlock() error {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 || abi < 5 {
		return fmt.Errorf("its version is %d: %w", abi, errno)
	}
	return nil
}

func lockups() error {
	return errors.Join(
		holds("/proc/sys/kernel/softlockup_panic", "1")(),
		holds("/proc/sys/kernel/hardlockup_panic", "1")(),
		holds("/proc/sys/kernel/soft_watchdog", "1")(),
		holds("/proc/sys/kernel/hung_task_panic", "0")(),
		holds("/proc/sys/kernel/panic_on_oops", "1")(),
	)
}

func enforcedArguments() error {
	line, err := cmdline.Read()
	if err != nil {
		return err
	}
	return hardening.CheckCmdline(line)
}

// pageTables: an emulated processor that is not vulnerable does without the
// isolation that the command line asks for (pti-emulated.patch).
func pageTables() error {
	if holds("/proc/cpuinfo", "pti")() == nil {
		return errors.New("they are isolated: a system call takes thirty times as long")
	}
	return nil
}

// noUserNamespaces starts a program of nobody's in a user namespace of its own,
// which the sysctls set above refuse.
func noUserNamespaces() error {
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER,
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true},
	}
	if err := cmd.Run(); !errors.Is(err, unix.ENOSPC) { // the number of them is used up
		return fmt.Errorf("a user namespace: %v, want %v", err, unix.ENOSPC)
	}
	return nil
}

// noDebugFS: what debugfs shows is for those who built the kernel.
func noDebugFS() error {
	if err := unix.Mount("debugfs", "/tmp", "debugfs", 0, ""); !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mount it: %v, want %v", err, unix.ENODEV)
	}
	return nil
}

// unsignedKexec hands over a file that is no kernel: the call is there, and says so.
func unsignedKexec() error {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer file.Close()
	err = unix.KexecFileLoad(int(file.Fd()), -1, "", unix.KEXEC_FILE_NO_INITRAMFS)
	if !errors.Is(err, unix.ENOEXEC) {
		return fmt.Errorf("kexec of a program: %v, want %v", err, unix.ENOEXEC)
	}
	return nil
}
