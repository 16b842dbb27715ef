package machine

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
	"google.golang.org/protobuf/types/known/emptypb"

	"talos/api/machine"
)

// Memory reports /proc/meminfo, in KiB as the kernel counts.
func (s *Server) Memory(context.Context, *emptypb.Empty) (*machine.MemoryResponse, error) {
	m, err := s.proc.Meminfo()
	if err != nil {
		return nil, fmt.Errorf("read meminfo: %w", err)
	}
	info := &machine.MemInfo{
		Memtotal: deref(m.MemTotal), Memfree: deref(m.MemFree), Memavailable: deref(m.MemAvailable),
		Buffers: deref(m.Buffers), Cached: deref(m.Cached), Swapcached: deref(m.SwapCached),
		Active: deref(m.Active), Inactive: deref(m.Inactive),
		Activeanon: deref(m.ActiveAnon), Inactiveanon: deref(m.InactiveAnon),
		Activefile: deref(m.ActiveFile), Inactivefile: deref(m.InactiveFile),
		Unevictable: deref(m.Unevictable), Mlocked: deref(m.Mlocked),
		Swaptotal: deref(m.SwapTotal), Swapfree: deref(m.SwapFree),
		Dirty: deref(m.Dirty), Writeback: deref(m.Writeback), Anonpages: deref(m.AnonPages), Mapped: deref(m.Mapped),
		Shmem: deref(m.Shmem), Slab: deref(m.Slab), Sreclaimable: deref(m.SReclaimable), Sunreclaim: deref(m.SUnreclaim),
		Kernelstack: deref(m.KernelStack), Pagetables: deref(m.PageTables), Nfsunstable: deref(m.NFSUnstable),
		Bounce: deref(m.Bounce), Writebacktmp: deref(m.WritebackTmp), Commitlimit: deref(m.CommitLimit), Committedas: deref(m.CommittedAS),
		Vmalloctotal: deref(m.VmallocTotal), Vmallocused: deref(m.VmallocUsed), Vmallocchunk: deref(m.VmallocChunk),
		Hardwarecorrupted: deref(m.HardwareCorrupted), Anonhugepages: deref(m.AnonHugePages),
		Shmemhugepages: deref(m.ShmemHugePages), Shmempmdmapped: deref(m.ShmemPmdMapped),
		Cmatotal: deref(m.CmaTotal), Cmafree: deref(m.CmaFree),
		Hugepagestotal: deref(m.HugePagesTotal), Hugepagesfree: deref(m.HugePagesFree),
		Hugepagesrsvd: deref(m.HugePagesRsvd), Hugepagessurp: deref(m.HugePagesSurp), Hugepagesize: deref(m.Hugepagesize),
		Directmap4K: deref(m.DirectMap4k), Directmap2M: deref(m.DirectMap2M), Directmap1G: deref(m.DirectMap1G),
	}
	return &machine.MemoryResponse{Messages: []*machine.Memory{{Meminfo: info}}}, nil
}

func deref(v *uint64) uint64 {
	if v == nil {
		return 0 // the kernel does not have this line
	}
	return *v
}

// LoadAvg reports /proc/loadavg.
func (s *Server) LoadAvg(context.Context, *emptypb.Empty) (*machine.LoadAvgResponse, error) {
	l, err := s.proc.LoadAvg()
	if err != nil {
		return nil, fmt.Errorf("read loadavg: %w", err)
	}
	return &machine.LoadAvgResponse{Messages: []*machine.LoadAvg{{Load1: l.Load1, Load5: l.Load5, Load15: l.Load15}}}, nil
}

// SystemStat reports /proc/stat; times are in seconds.
func (s *Server) SystemStat(context.Context, *emptypb.Empty) (*machine.SystemStatResponse, error) {
	st, err := s.proc.Stat()
	if err != nil {
		return nil, fmt.Errorf("read stat: %w", err)
	}
	out := &machine.SystemStat{
		BootTime: st.BootTime, CpuTotal: cpuStat(st.CPUTotal), IrqTotal: st.IRQTotal, Irq: st.IRQ,
		ContextSwitches: st.ContextSwitches, ProcessCreated: st.ProcessCreated,
		ProcessRunning: st.ProcessesRunning, ProcessBlocked: st.ProcessesBlocked, SoftIrqTotal: st.SoftIRQTotal,
		SoftIrq: &machine.SoftIRQStat{
			Hi: st.SoftIRQ.Hi, Timer: st.SoftIRQ.Timer, NetTx: st.SoftIRQ.NetTx, NetRx: st.SoftIRQ.NetRx, Block: st.SoftIRQ.Block,
			BlockIoPoll: st.SoftIRQ.BlockIoPoll, Tasklet: st.SoftIRQ.Tasklet, Sched: st.SoftIRQ.Sched, Hrtimer: st.SoftIRQ.Hrtimer, Rcu: st.SoftIRQ.Rcu,
		},
	}
	ids := make([]int64, 0, len(st.CPU))
	for id := range st.CPU {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		out.Cpu = append(out.Cpu, cpuStat(st.CPU[id]))
	}
	return &machine.SystemStatResponse{Messages: []*machine.SystemStat{out}}, nil
}

func cpuStat(c procfs.CPUStat) *machine.CPUStat {
	return &machine.CPUStat{
		User: c.User, Nice: c.Nice, System: c.System, Idle: c.Idle, Iowait: c.Iowait,
		Irq: c.IRQ, SoftIrq: c.SoftIRQ, Steal: c.Steal, Guest: c.Guest, GuestNice: c.GuestNice,
	}
}

// CPUInfo reports /proc/cpuinfo.
func (s *Server) CPUInfo(context.Context, *emptypb.Empty) (*machine.CPUInfoResponse, error) {
	cpus, err := s.proc.CPUInfo()
	if err != nil {
		return nil, fmt.Errorf("read cpuinfo: %w", err)
	}
	out := &machine.CPUsInfo{}
	for _, c := range cpus {
		out.CpuInfo = append(out.CpuInfo, &machine.CPUInfo{
			Processor: uint32(c.Processor), VendorId: c.VendorID, CpuFamily: c.CPUFamily, Model: c.Model, ModelName: c.ModelName,
			Stepping: c.Stepping, Microcode: c.Microcode, CpuMhz: c.CPUMHz, CacheSize: c.CacheSize, PhysicalId: c.PhysicalID,
			Siblings: uint32(c.Siblings), CoreId: c.CoreID, CpuCores: uint32(c.CPUCores), ApicId: c.APICID, InitialApicId: c.InitialAPICID,
			Fpu: c.FPU, FpuException: c.FPUException, CpuIdLevel: uint32(c.CPUIDLevel), Wp: c.WP, Flags: c.Flags, Bugs: c.Bugs,
			BogoMips: c.BogoMips, ClFlushSize: uint32(c.CLFlushSize), CacheAlignment: uint32(c.CacheAlignment),
			AddressSizes: c.AddressSizes, PowerManagement: c.PowerManagement,
		})
	}
	return &machine.CPUInfoResponse{Messages: []*machine.CPUsInfo{out}}, nil
}

// NetworkDeviceStats reports /proc/net/dev.
func (s *Server) NetworkDeviceStats(context.Context, *emptypb.Empty) (*machine.NetworkDeviceStatsResponse, error) {
	devs, err := s.proc.NetDev()
	if err != nil {
		return nil, fmt.Errorf("read net/dev: %w", err)
	}
	out := &machine.NetworkDeviceStats{Total: netDev(devs.Total())}
	for _, name := range slices.Sorted(maps.Keys(devs)) {
		out.Devices = append(out.Devices, netDev(devs[name]))
	}
	return &machine.NetworkDeviceStatsResponse{Messages: []*machine.NetworkDeviceStats{out}}, nil
}

func netDev(d procfs.NetDevLine) *machine.NetDev {
	return &machine.NetDev{
		Name: d.Name, RxBytes: d.RxBytes, RxPackets: d.RxPackets, RxErrors: d.RxErrors, RxDropped: d.RxDropped,
		RxFifo: d.RxFIFO, RxFrame: d.RxFrame, RxCompressed: d.RxCompressed, RxMulticast: d.RxMulticast,
		TxBytes: d.TxBytes, TxPackets: d.TxPackets, TxErrors: d.TxErrors, TxDropped: d.TxDropped,
		TxFifo: d.TxFIFO, TxCollisions: d.TxCollisions, TxCarrier: d.TxCarrier, TxCompressed: d.TxCompressed,
	}
}

// DiskStats reports /proc/diskstats.
func (s *Server) DiskStats(context.Context, *emptypb.Empty) (*machine.DiskStatsResponse, error) {
	fs, err := blockdevice.NewFS(s.procPath, s.sysPath)
	if err != nil {
		return nil, fmt.Errorf("open diskstats: %w", err)
	}
	stats, err := fs.ProcDiskstats()
	if err != nil {
		return nil, fmt.Errorf("read diskstats: %w", err)
	}
	out := &machine.DiskStats{Total: &machine.DiskStat{Name: "total"}}
	for _, d := range stats {
		one := &machine.DiskStat{
			Name: d.DeviceName, ReadCompleted: d.ReadIOs, ReadMerged: d.ReadMerges, ReadSectors: d.ReadSectors, ReadTimeMs: d.ReadTicks,
			WriteCompleted: d.WriteIOs, WriteMerged: d.WriteMerges, WriteSectors: d.WriteSectors, WriteTimeMs: d.WriteTicks,
			IoInProgress: d.IOsInProgress, IoTimeMs: d.IOsTotalTicks, IoTimeWeightedMs: d.WeightedIOTicks,
			DiscardCompleted: d.DiscardIOs, DiscardMerged: d.DiscardMerges, DiscardSectors: d.DiscardSectors, DiscardTimeMs: d.DiscardTicks,
		}
		out.Devices = append(out.Devices, one)
		out.Total.ReadCompleted += one.ReadCompleted
		out.Total.ReadSectors += one.ReadSectors
		out.Total.WriteCompleted += one.WriteCompleted
		out.Total.WriteSectors += one.WriteSectors
		out.Total.IoTimeMs += one.IoTimeMs
	}
	return &machine.DiskStatsResponse{Messages: []*machine.DiskStats{out}}, nil
}

// Processes lists what runs on the node, in its own process namespace.
func (s *Server) Processes(context.Context, *emptypb.Empty) (*machine.ProcessesResponse, error) {
	procs, err := s.proc.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	out := &machine.Process{}
	for _, p := range procs {
		if info, ok := processInfo(p); ok {
			out.Processes = append(out.Processes, info)
		}
	}
	return &machine.ProcessesResponse{Messages: []*machine.Process{out}}, nil
}

// processInfo is false for a process that ended meanwhile.
func processInfo(p procfs.Proc) (*machine.ProcessInfo, bool) {
	stat, err := p.Stat()
	if err != nil {
		return nil, false
	}
	// These may be hidden or gone; a line without them is still worth showing.
	executable, _ := p.Executable()
	args, _ := p.CmdLine()
	return &machine.ProcessInfo{
		Pid: int32(p.PID), Ppid: int32(stat.PPID), State: stat.State, Threads: int32(stat.NumThreads),
		CpuTime: stat.CPUTime(), VirtualMemory: uint64(stat.VirtualMemory()), ResidentMemory: uint64(stat.ResidentMemory()),
		Command: stat.Comm, Executable: executable, Args: strings.Join(args, " "),
	}, true
}

// CPUFreqStats reports the processors' frequencies in kHz where they scale.
func (s *Server) CPUFreqStats(context.Context, *emptypb.Empty) (*machine.CPUFreqStatsResponse, error) {
	out := &machine.CPUsFreqStats{}
	dirs, err := filepath.Glob(filepath.Join(s.sysPath, "devices/system/cpu/cpu[0-9]*/cpufreq"))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		out.CpuFreqStats = append(out.CpuFreqStats, &machine.CPUFreqStats{
			CurrentFrequency: readNumber(dir, "scaling_cur_freq"), MinimumFrequency: readNumber(dir, "scaling_min_freq"),
			MaximumFrequency: readNumber(dir, "scaling_max_freq"), Governor: readText(dir, "scaling_governor"),
		})
	}
	return &machine.CPUFreqStatsResponse{Messages: []*machine.CPUsFreqStats{out}}, nil
}

func readText(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "" // not every driver has every file
	}
	return strings.TrimSpace(string(data))
}

func readNumber(dir, name string) (n uint64) {
	fmt.Sscan(readText(dir, name), &n) // zero when there is none
	return n
}
