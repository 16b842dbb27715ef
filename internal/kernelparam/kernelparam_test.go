package kernelparam

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-project/runtime/pkg/controller/runtime"
	"github.com/cosi-project/runtime/pkg/controller/runtime/options"
	"github.com/cosi-project/runtime/pkg/resource"
	"github.com/cosi-project/runtime/pkg/safe"
	"github.com/cosi-project/runtime/pkg/state"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"

	"talos/config"
	configres "talos/internal/resources/config"
	runtimeres "talos/internal/resources/runtime"
	"talos/internal/store"
)

// kernel lays out a folder with files as a kernel would have them.
func kernel(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func content(t *testing.T, root, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWanted(t *testing.T) {
	var text strings.Builder
	got := Wanted(map[string]string{"kernel.kptr_restrict": "2", "kernel.dmesg_restrict": "1", "net.ipv4.conf.*.send_redirects": "0"}, config.Machine{
		Sysctls: map[string]string{
			"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.100/forwarding": "1", "kernel.kptr_restrict": "0", "kernel/dmesg_restrict": "1",
			"net/ipv4/conf/eth0.100/send_redirects": "1", "net.ipv4.conf.eth1.send_redirects": "0",
		},
		Sysfs: map[string]string{"devices.system.cpu.cpu0.cpufreq.scaling_governor": "performance"},
	}, slog.New(slog.NewTextHandler(&text, nil)))
	want := map[resource.ID]runtimeres.KernelParamSpecSpec{
		"proc.sys.kernel.kptr_restrict": {Value: "0"}, "proc.sys.kernel.dmesg_restrict": {Value: "1"}, "proc.sys.net.ipv4.ip_forward": {Value: "1"},
		"proc.sys.net.ipv4.conf.eth0/100.forwarding": {Value: "1"}, "sys.devices.system.cpu.cpu0.cpufreq.scaling_governor": {Value: "performance"},
		"proc.sys.net.ipv4.conf.eth0/100.send_redirects": {Value: "1"}, "proc.sys.net.ipv4.conf.eth1.send_redirects": {Value: "0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Wanted (-want +got):\n%s", diff)
	}
	if log := text.String(); strings.Count(log, "WARN") != 2 || !strings.Contains(log, "parameter=kernel.kptr_restrict from=2 to=0") ||
		!strings.Contains(log, "parameter=net/ipv4/conf/eth0.100/send_redirects from=0 to=1") {
		t.Errorf("log = %q, want two warnings", log)
	}
	only := Wanted(map[string]string{"kernel.kptr_restrict": "2", "a.*": "1"}, config.Machine{}, slog.New(slog.DiscardHandler))
	if diff := cmp.Diff(map[resource.ID]runtimeres.KernelParamSpecSpec{"proc.sys.kernel.kptr_restrict": {Value: "2", IgnoreErrors: true}}, only); diff != "" {
		t.Errorf("without a configuration (-want +got):\n%s", diff)
	}
}

func TestFile(t *testing.T) {
	for id, want := range map[resource.ID]string{
		"proc.sys.net.ipv4.conf.eth0/100.forwarding": "/proc/sys/net/ipv4/conf/eth0.100/forwarding",
		"sys.block.sda.queue.scheduler":              "/sys/block/sda/queue/scheduler",
		"proc.sys.":                                  "", "proc.sys": "", "sys.": "", "proc.sys...x": "", "proc.sys.//.//.etc.passwd": "", "etc.passwd": "", "proc.sys.a..b": "", "proc.1.mem": "",
	} {
		got, err := file("/", id)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("file(%q) = %q, %v, want %q", id, got, err, want)
		}
	}
}

// TestSet: values are set, kept, and given back in the end.
func TestSet(t *testing.T) {
	root := kernel(t, map[string]string{"proc/sys/net/rmem": "4096\t131072\t6291456\n", "proc/sys/kernel/x": "0\n", "sys/q": "[none] fast\n"})
	s := &setter{log: slog.New(slog.DiscardHandler), root: root, before: map[resource.ID]string{}, refused: map[resource.ID]bool{}}
	set := func(id resource.ID, value string) runtimeres.KernelParamStatusSpec {
		t.Helper()
		got, err := s.set(id, runtimeres.KernelParamSpecSpec{Value: value})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := set("proc.sys.net.rmem", "4096 131072 6291456"); got.Current != "4096\t131072\t6291456" || content(t, root, "proc/sys/net/rmem") != got.Current+"\n" {
		t.Errorf("what is so already: %+v", got)
	}
	if got := set("sys.q", "none"); content(t, root, "sys/q") != "[none] fast\n" {
		t.Errorf("a choice that is so already: %+v", got)
	}
	want := runtimeres.KernelParamStatusSpec{Current: "1", Default: "0"}
	if diff := cmp.Diff(want, set("proc.sys.kernel.x", "1")); diff != "" {
		t.Errorf("set (-want +got):\n%s", diff)
	}
	want = runtimeres.KernelParamStatusSpec{Current: "2", Default: "0"}
	if diff := cmp.Diff(want, set("proc.sys.kernel.x", "2")); diff != "" {
		t.Errorf("set again (-want +got):\n%s", diff)
	}
	if got := set("proc.sys.kernel.none", "1"); !got.Unsupported {
		t.Errorf("what the kernel has not: %+v", got)
	}
	if err := s.revert(nil); err != nil {
		t.Fatal(err)
	}
	if got := content(t, root, "proc/sys/kernel/x"); got != "0\n" && got != "0" {
		t.Errorf("given back: %q, want 0", got)
	}
	if len(s.before) != 0 {
		t.Errorf("still remembered: %v", s.before)
	}
}

// TestControllers: the configuration comes, changes, and goes back.
func TestControllers(t *testing.T) {
	root := kernel(t, map[string]string{
		"proc/sys/vm/max_map_count": "65530\n", "proc/sys/kernel/panic": "0", "sys/module/kvm/parameters/halt_poll_ns": "200000\n",
		"lib/modules.builtin": "kernel/drivers/net/dummy.ko\nkernel/fs/nfs-x.ko\n",
	})
	ctx, cancel := context.WithCancel(t.Context())
	st, err := store.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.NewRuntime(st, zap.NewNop(), options.WithMetrics(false))
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{Log: slog.New(slog.DiscardHandler), Root: root, Modules: filepath.Join(root, "lib/modules.builtin"), Defaults: map[string]string{"kernel.panic": "10"}}
	for _, c := range Controllers(opts) {
		if err := rt.RegisterController(c); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "default", func() string { return content(t, root, "proc/sys/kernel/panic") }, "10")

	mc := configres.NewMachineConfig(configres.ActiveID)
	secrets, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	made.Worker.Machine.Sysctls = map[string]string{"vm.max_map_count": "262144", "vm.none": "1"}
	if mc.TypedSpec().Document, err = made.Worker.Bytes(); err != nil {
		t.Fatal(err)
	}
	if err := st.Create(ctx, mc); err != nil {
		t.Fatal(err)
	}
	eventually(t, "configured", func() string { return content(t, root, "proc/sys/vm/max_map_count") }, "262144")
	eventually(t, "status", func() string {
		res, err := safe.StateGetByID[*runtimeres.KernelParamStatus](ctx, st, "proc.sys.vm.max_map_count")
		if err != nil {
			return err.Error()
		}
		s := res.TypedSpec()
		return s.Current + " instead of " + s.Default
	}, "262144 instead of 65530")

	_, err = safe.StateUpdateWithConflicts(ctx, st, mc.Metadata(), func(mc *configres.MachineConfig) error {
		made.Worker.Machine.Sysctls = nil
		mc.TypedSpec().Document, err = made.Worker.Bytes()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "taken out", func() string { return content(t, root, "proc/sys/vm/max_map_count") }, "65530")
	eventually(t, "its status", func() string {
		_, err := safe.StateGetByID[*runtimeres.KernelParamStatus](ctx, st, "proc.sys.vm.max_map_count")
		if state.IsNotFoundError(err) {
			return "gone"
		}
		return "there"
	}, "gone")
}

func eventually(t *testing.T, what string, have func() string, want string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); have() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %q, want %q", what, have(), want)
		}
	}
}

func TestCheck(t *testing.T) {
	root := kernel(t, map[string]string{"sys/module/tcp_bbr/x": "", "list": "kernel/drivers/net/dummy.ko\nkernel/fs/nfs-x.ko\nnonsense\n"})
	builtin, err := Builtin(root, filepath.Join(root, "list"))
	if err != nil {
		t.Fatal(err)
	}
	got := Check([]config.KernelModule{{Name: "tcp-bbr"}, {Name: "dummy"}, {Name: "nfs_x"}, {Name: "zfs"}, {Name: "../x"}}, builtin)
	want := []Module{
		{"tcp-bbr", true, ""}, {"dummy", true, ""}, {"nfs_x", true, ""}, {"zfs", false, "is not built into the kernel, and modules can't be loaded"}, {"../x", false, "is no name of a module"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("Check (-want +got):\n%s", diff)
	}
	if got, err := Builtin(t.TempDir(), "/nowhere"); err != nil || len(got) != 0 {
		t.Errorf("Builtin of nothing = %v, %v", got, err)
	}
}

// TestAssess: parameters of modules that are there are set, and what is wrong is
// named.
func TestAssess(t *testing.T) {
	root := kernel(t, map[string]string{"sys/module/tcp_x/parameters/level": "1\n", "sys/module/tcp_x/parameters/mode": "on\n"})
	got := assess(root, []config.KernelModule{
		{Name: "tcp-x", Parameters: []string{"level=2", "mode=on", "none=1", "../level=1", "=1"}}, {Name: "zfs"}, {},
	}, map[string]bool{"tcp_x": true})
	want := assessment{
		specs: map[resource.ID]runtimeres.KernelModuleSpecSpec{
			"tcp-x": {Name: "tcp-x", Parameters: []string{"level=2", "mode=on", "none=1", "../level=1", "=1"}}, "zfs": {Name: "zfs"},
		},
		statuses: map[resource.ID]runtimeres.KernelModuleStatusSpec{"tcp-x": {Type: runtimeres.ModuleBuiltin, State: runtimeres.ModuleStateBuiltin}},
		problems: []string{
			`"tcp-x": it has no parameter none`, `"tcp-x": parameter "../level" is no name`, `"tcp-x": parameter "" is no name`,
			`"zfs" is not built into the kernel, and modules can't be loaded`, `"" is no name of a module`,
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(assessment{})); diff != "" {
		t.Errorf("assess (-want +got):\n%s", diff)
	}
	if got := strings.TrimSpace(content(t, root, "sys/module/tcp_x/parameters/level")); got != "2" {
		t.Errorf("the parameter is %q, want 2", got)
	}
}
