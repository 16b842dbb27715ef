package kernel

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// built returns the configuration of the kernel that was built: the file that
// TALOS_KERNEL_CONFIG names, or the one in _out. REQUIRE_IMAGE=1 (CI) makes a missing one
// a failure.
func built(t *testing.T) string {
	t.Helper()
	name := os.Getenv("TALOS_KERNEL_CONFIG")
	if name == "" {
		name = filepath.Join("..", "_out", "kernel", "config")
	}
	if _, err := os.Stat(name); err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatalf("no kernel was built, and REQUIRE_IMAGE=1: %v", err)
		}
		t.Skipf("no kernel was built: %v", err)
	}
	return name
}

var (
	set   = regexp.MustCompile(`^CONFIG_(\w+)=(.+)$`)
	unset = regexp.MustCompile(`^# CONFIG_(\w+) is not set$`)
)

// options reads a configuration: what is set, by name without CONFIG_, and ""
// for what is named as not set.
func options(t *testing.T, name string) map[string]string {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	options := map[string]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if m := set.FindStringSubmatch(lines.Text()); m != nil {
			options[m[1]] = m[2]
		} else if m := unset.FindStringSubmatch(lines.Text()); m != nil {
			options[m[1]] = ""
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return options
}

// required are the options that must be built in, by what needs them. The
// table is not made from the fragments: an option that is taken out of one
// by mistake is missed here.
var required = map[string]string{
	"what boots": `64BIT SMP ACPI EFI EFI_STUB BLK_DEV_INITRD RD_ZSTD DEVTMPFS TMPFS PCI PCI_MSI PCI_QUIRKS BINFMT_ELF
		BINFMT_SCRIPT SQUASHFS SQUASHFS_ZSTD SQUASHFS_XATTR BLK_DEV_LOOP DM_VERITY EFI_PARTITION FUTEX SHMEM EPOLL POSIX_TIMERS`,
	"consoles": `TTY VT VT_CONSOLE UNIX98_PTYS SERIAL_8250_CONSOLE FB_EFI FRAMEBUFFER_CONSOLE VGA_CONSOLE HVC_DRIVER
		VIRTIO_CONSOLE NETCONSOLE KEYBOARD_ATKBD USB_HID MAGIC_SYSRQ`,
	"disks": `VIRTIO_BLK SCSI_VIRTIO BLK_DEV_NVME SATA_AHCI ATA_PIIX BLK_DEV_SD BLK_DEV_SR CHR_DEV_SG MEGARAID_SAS SCSI_MPT3SAS
		SCSI_MPI3MR SCSI_SMARTPQI SCSI_HPSA SCSI_AACRAID USB_STORAGE USB_UAS USB_XHCI_HCD VMD
		BLK_DEV_DM DM_CRYPT DM_INTEGRITY MD_RAID0 MD_RAID1 MD_RAID10 MD_RAID456 ISCSI_TCP NVME_TCP`,
	"file systems": `XFS_FS XFS_QUOTA EXT4_FS VFAT_FS ISO9660_FS JOLIET OVERLAY_FS TMPFS_XATTR TMPFS_POSIX_ACL FUSE_FS NFS_V4
		CEPH_FS NLS_CODEPAGE_437 NLS_ISO8859_1 NLS_UTF8 FANOTIFY INOTIFY_USER PROC_FS SYSFS`,
	"cards": `E1000 E1000E IGB IGBVF IGC IXGBE IXGBEVF I40E IAVF ICE TIGON3 BNX2 BNX2X BNXT MLX4_EN MLX5_CORE_EN R8169`,
	"clouds": `KVM_GUEST VIRTIO_PCI VIRTIO_NET VIRTIO_BALLOON VIRTIO_VSOCKETS HYPERV HYPERV_NET HYPERV_STORAGE HYPERV_UTILS PCI_HYPERV
		MICROSOFT_MANA XEN_PVHVM XEN_BLKDEV_FRONTEND XEN_NETDEV_FRONTEND HVC_XEN VMWARE_PVSCSI VMXNET3 VMWARE_VMCI ENA_ETHERNET GVE
		PTP_1588_CLOCK_KVM HW_RANDOM_VIRTIO`,
	"links": `BONDING DUMMY WIREGUARD MACVLAN MACVTAP IPVLAN VXLAN GENEVE TUN VETH NETKIT NET_VRF VLAN_8021Q BRIDGE
		BRIDGE_VLAN_FILTERING NET_IPIP NET_IPGRE IPV6_SIT IPV6_TUNNEL IFB OPENVSWITCH`,
	"routing": `IPV6 IP_MULTIPLE_TABLES IP_ROUTE_MULTIPATH IPV6_MULTIPLE_TABLES INET_DIAG INET_DIAG_DESTROY ETHTOOL_NETLINK
		NET_SCH_NETEM NET_SCH_INGRESS NET_SCH_FQ NET_SCH_FQ_CODEL NET_SCH_TBF NET_CLS_BPF NET_ACT_BPF NET_CLS_ACT IP_SCTP SYN_COOKIES`,
	"rules": `NF_TABLES NF_TABLES_INET NF_TABLES_IPV4 NF_TABLES_IPV6 NF_TABLES_BRIDGE NFT_CT NFT_NAT NFT_MASQ NFT_REDIR NFT_FIB
		NFT_FIB_INET NFT_NUMGEN NFT_HASH NFT_LOG NFT_LIMIT NFT_QUOTA NFT_REJECT NFT_TPROXY NFT_SOCKET NFT_COMPAT NFT_FLOW_OFFLOAD
		NF_CONNTRACK NF_CONNTRACK_PROCFS NF_CT_NETLINK BRIDGE_NETFILTER NETFILTER_XT_MATCH_COMMENT NETFILTER_XT_MATCH_ADDRTYPE
		NETFILTER_XT_MATCH_MULTIPORT NETFILTER_XT_MATCH_STATISTIC NETFILTER_XT_MATCH_RECENT NETFILTER_XT_MATCH_CONNTRACK
		NETFILTER_XT_TARGET_MASQUERADE NETFILTER_XT_TARGET_TPROXY IP_NF_TARGET_REJECT IP6_NF_TARGET_REJECT NETFILTER_XT_SET
		IP_SET IP_SET_HASH_IPPORT IP_VS IP_VS_IPV6 IP_VS_NFCT IP_VS_RR IP_VS_SH IP_VS_MH`,
	"containers": `NAMESPACES UTS_NS IPC_NS PID_NS NET_NS USER_NS TIME_NS CGROUPS MEMCG BLK_CGROUP CPUSETS CGROUP_PIDS
		CGROUP_HUGETLB CGROUP_RDMA CGROUP_MISC CGROUP_DEVICE CGROUP_FREEZER CGROUP_PERF CGROUP_BPF CFS_BANDWIDTH PSI SECCOMP_FILTER
		POSIX_MQUEUE SYSVIPC HUGETLBFS SWAP KEYS AUDIT AUDITSYSCALL`,
	"bpf": `BPF_SYSCALL BPF_JIT BPF_JIT_ALWAYS_ON BPF_UNPRIV_DEFAULT_OFF BPF_EVENTS BPF_LSM DEBUG_INFO_BTF KPROBES UPROBES FTRACE_SYSCALLS`,
	"security": `SECURITY_LOCKDOWN_LSM SECURITY_LOCKDOWN_LSM_EARLY LOCK_DOWN_IN_EFI_SECURE_BOOT SECURITY_YAMA SECURITY_LANDLOCK
		KEXEC_FILE KEXEC_SIG KEXEC_BZIMAGE_VERIFY_SIG INTEGRITY_PLATFORM_KEYRING LOAD_UEFI_KEYS EFIVAR_FS PSTORE PSTORE_RAM
		EFI_VARS_PSTORE TCG_TPM TCG_TIS TCG_CRB RESET_ATTACK_MITIGATION SECURITY_DMESG_RESTRICT PROC_MEM_NO_FORCE STATIC_USERMODEHELPER`,
	"watchdogs": `SOFT_WATCHDOG ITCO_WDT I6300ESB_WDT SP5100_TCO WDAT_WDT HP_WATCHDOG IPMI_WATCHDOG WATCHDOG_SYSFS
		SOFTLOCKUP_DETECTOR BOOTPARAM_SOFTLOCKUP_PANIC HARDLOCKUP_DETECTOR BOOTPARAM_HARDLOCKUP_PANIC DETECT_HUNG_TASK PANIC_ON_OOPS`,
	"self protection": `STRICT_KERNEL_RWX DEBUG_WX VMAP_STACK STACKPROTECTOR_STRONG GCC_PLUGIN_STACKLEAK INIT_STACK_ALL_ZERO
		RANDOMIZE_KSTACK_OFFSET_DEFAULT ZERO_CALL_USED_REGS HARDENED_USERCOPY FORTIFY_SOURCE UBSAN_BOUNDS UBSAN_TRAP SLAB_FREELIST_RANDOM
		SLAB_FREELIST_HARDENED SLAB_BUCKETS RANDOM_KMALLOC_CACHES SHUFFLE_PAGE_ALLOCATOR INIT_ON_ALLOC_DEFAULT_ON KFENCE
		PAGE_TABLE_CHECK_ENFORCED RANDOMIZE_BASE RANDOMIZE_MEMORY BUG_ON_DATA_CORRUPTION LIST_HARDENED DEBUG_LIST DEBUG_SG
		DEBUG_VIRTUAL DEBUG_NOTIFIERS SCHED_STACK_END_CHECK MITIGATION_PAGE_TABLE_ISOLATION MITIGATION_RETPOLINE MITIGATION_SLS
		MITIGATION_SRSO MITIGATION_ITS MITIGATION_TSA X86_KERNEL_IBT X86_USER_SHADOW_STACK X86_UMIP IOMMU_DEFAULT_DMA_STRICT
		INTEL_IOMMU_DEFAULT_ON AMD_IOMMU`,
}

// forbidden are the options that must not be on, by what they would give away.
var forbidden = map[string]string{
	"code from outside": `MODULES MODULE_SIG KEXEC HIBERNATION SUSPEND BINFMT_MISC LIVEPATCH ACPI_CUSTOM_DSDT ACPI_DEBUGGER
		ACPI_CONFIGFS ACPI_TABLE_UPGRADE FW_LOADER_USER_HELPER MICROCODE_LATE_LOADING`,
	"kernel memory": `DEVMEM DEVPORT PROC_KCORE PROC_VMCORE X86_MSR X86_IOPL_IOPERM GCC_PLUGIN_RANDSTRUCT BPF_KPROBE_OVERRIDE
		FAULT_INJECTION KALLSYMS_SELFTEST PAGE_OWNER`,
	"old ways in": `IA32_EMULATION X86_X32_ABI COMPAT LEGACY_VSYSCALL_EMULATE LEGACY_VSYSCALL_XONLY MODIFY_LDT_SYSCALL
		LEGACY_PTYS LEGACY_TIOCSTI LDISC_AUTOLOAD COMPAT_BRK COMPAT_VDSO USELIB SYSFS_SYSCALL USERFAULTFD IP_NF_IPTABLES_LEGACY
		BRIDGE_NF_EBTABLES_LEGACY MEMCG_V1 CPUSETS_V1 SCSI_PROC_FS PROC_MEM_ALWAYS_FORCE PROC_MEM_FORCE_PTRACE`,
	"weakened":           `SLAB_MERGE_DEFAULT SLUB_TINY STACKLEAK_RUNTIME_DISABLE BOOTPARAM_HUNG_TASK_PANIC MAGIC_SYSRQ_SERIAL EFI_MIXED CRYPTO_MANAGER_EXTRA_TESTS`,
	"nobody looks at it": `DRM SOUND WIRELESS WLAN BT MEDIA_SUPPORT INPUT_MOUSE INPUT_JOYSTICK`,
	"not reproducible":   `LOCALVERSION_AUTO GCC_PLUGIN_LATENT_ENTROPY RANDSTRUCT IKHEADERS`,
}

func TestBuiltConfiguration(t *testing.T) {
	have := options(t, built(t))
	for why, names := range required {
		for name := range strings.FieldsSeq(names) {
			if have[name] != "y" {
				t.Errorf("CONFIG_%s is %q, want y (%s)", name, have[name], why)
			}
		}
	}
	for why, names := range forbidden {
		for name := range strings.FieldsSeq(names) {
			if have[name] != "" {
				t.Errorf("CONFIG_%s is %q, want it off (%s)", name, have[name], why)
			}
		}
	}
	for name, value := range have {
		if value == "m" {
			t.Errorf("CONFIG_%s is a module", name)
		}
	}
	for name, want := range map[string]string{
		"LSM":                        `"lockdown,yama,landlock,bpf"`,
		"PANIC_TIMEOUT":              "10",
		"DEFAULT_MMAP_MIN_ADDR":      "65536",
		"ARCH_MMAP_RND_BITS":         "32",
		"SYSTEM_TRUSTED_KEYS":        `""`,
		"STATIC_USERMODEHELPER_PATH": `"/sbin/usermode-helper"`,
		"MAGIC_SYSRQ_DEFAULT_ENABLE": "0x0",
		"BLK_DEV_LOOP_MIN_COUNT":     "0",
	} {
		if have[name] != want {
			t.Errorf("CONFIG_%s is %s, want %s", name, have[name], want)
		}
	}
}

// TestFragmentsSurvived: the built configuration is what the fragments say now,
// not what they said when it was built.
func TestFragmentsSurvived(t *testing.T) {
	have := options(t, built(t))
	for _, fragment := range fragments(t) {
		for name, want := range options(t, fragment) {
			if have[name] != want {
				t.Errorf("%s: CONFIG_%s is %q, want %q", fragment, name, have[name], want)
			}
		}
	}
}

func fragments(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*.config")
	if err != nil || len(names) < 10 {
		t.Fatalf("fragments are %v (%v)", names, err)
	}
	return names
}

// TestFragmentsAgree: an option is named once, in one fragment.
func TestFragmentsAgree(t *testing.T) {
	seen := map[string]string{}
	for _, fragment := range fragments(t) {
		data, err := os.ReadFile(fragment)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			m := set.FindStringSubmatch(line)
			if m == nil {
				m = unset.FindStringSubmatch(line)
			}
			if m == nil {
				continue
			}
			if first, ok := seen[m[1]]; ok {
				t.Errorf("%s: CONFIG_%s is in %s already", fragment, m[1], first)
			}
			seen[m[1]] = fragment
		}
	}
	t.Logf("%d options", len(seen))
}

// TestBlocksHaveReasons: each fragment starts with what it is about, and each
// block of options with why. Nothing else is in a fragment.
func TestBlocksHaveReasons(t *testing.T) {
	for _, fragment := range fragments(t) {
		data, err := os.ReadFile(fragment)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
			lines := strings.Split(block, "\n")
			first := slices.IndexFunc(lines, func(l string) bool { return set.MatchString(l) || unset.MatchString(l) })
			switch {
			case i == 0 && first >= 0:
				t.Errorf("%s does not start with a comment of its own", fragment)
			case i > 0 && first < 0:
				t.Errorf("%s: no option in %q", fragment, block)
			case i > 0 && first == 0:
				t.Errorf("%s: no reason for %q", fragment, lines[0])
			}
			for j, line := range lines {
				option := set.MatchString(line) || unset.MatchString(line)
				if comment := strings.HasPrefix(line, "# "); !option && (!comment || first >= 0 && j > first) {
					t.Errorf("%s: %q is neither an option nor a reason before options", fragment, line)
				}
				if strings.HasSuffix(line, "=m") {
					t.Errorf("%s: %s, and there are no modules", fragment, line)
				}
			}
		}
	}
}
