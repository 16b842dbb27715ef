package udevd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"talos/internal/udevd/rules"
)

// access is who may use the nodes of a kind of device. The first row that fits
// counts; devtmpfs makes all others for root alone.
type access struct {
	subsystem, node string // node is a pattern as in rules
	mode            uint32
	group           string
}

// nodes follow what Linux systems have by custom.
var nodes = []access{
	{"block", "sr*", 0o660, "cdrom"},
	{"block", "*", 0o660, "disk"},
	{"scsi_generic", "sg*", 0o660, "disk"},
	{"misc", "loop-control", 0o660, "disk"},
	{"scsi_tape", "*", 0o660, "tape"},

	{"mem", "null", 0o666, "root"}, {"mem", "zero", 0o666, "root"}, {"mem", "full", 0o666, "root"},
	{"mem", "random", 0o666, "root"}, {"mem", "urandom", 0o666, "root"},
	{"mem", "mem", 0o640, "kmem"}, {"mem", "kmem", 0o640, "kmem"}, {"mem", "port", 0o640, "kmem"},

	{"tty", "tty", 0o666, "tty"}, {"tty", "ptmx", 0o666, "tty"}, {"tty", "console", 0o600, "root"},
	{"tty", "tty[A-Z]*", 0o660, "dialout"}, {"tty", "hvc*", 0o660, "dialout"},
	{"tty", "tty[0-9]*", 0o620, "tty"}, {"tty", "pty*", 0o660, "tty"}, {"vc", "vcs*", 0o660, "tty"},

	{"misc", "fuse", 0o666, "root"}, {"misc", "net/tun", 0o666, "root"}, {"misc", "kvm", 0o660, "kvm"},
	{"misc", "vhost-net", 0o660, "kvm"}, {"misc", "vhost-vsock", 0o660, "kvm"}, {"misc", "vsock", 0o666, "root"},
	{"vfio", "vfio/vfio", 0o666, "root"}, {"misc", "vfio/vfio", 0o666, "root"},
	{"misc", "sgx_enclave", 0o660, "sgx"}, {"misc", "rfkill", 0o664, "root"},
	{"misc", "hwrng", 0o600, "root"}, {"rtc", "rtc*", 0o600, "root"}, {"watchdog", "watchdog*", 0o600, "root"}, {"misc", "watchdog", 0o600, "root"},
	{"infiniband_verbs", "infiniband/uverbs*", 0o666, "root"}, {"misc", "infiniband/rdma_cm", 0o666, "root"},

	{"drm", "dri/renderD*", 0o666, "render"}, {"kfd", "kfd", 0o666, "render"}, {"drm", "dri/*", 0o660, "video"}, {"accel", "accel/*", 0o666, "render"},
	{"graphics", "*", 0o660, "video"}, {"video4linux", "*", 0o660, "video"}, {"media", "*", 0o660, "video"}, {"dvb", "*", 0o660, "video"}, {"cec", "*", 0o660, "video"},
	{"sound", "*", 0o660, "audio"}, {"input", "*", 0o660, "input"},
	{"usb", "bus/usb/*/*", 0o664, "root"}, {"printer", "*", 0o660, "lp"}, {"usbmisc", "usb/lp*", 0o660, "lp"},
}

// groups are those that the table and user rules name, with the numbers that
// most systems have. A pod that is given a device's group goes by the number.
var groups = map[string]int{
	"root": 0, "tty": 5, "disk": 6, "lp": 7, "kmem": 15, "dialout": 20, "cdrom": 24, "tape": 26, "audio": 29, "kvm": 36, "video": 44,
	"plugdev": 46, "users": 100, "input": 104, "render": 105, "sgx": 106,
}

// rowFor is the row of the table for a node.
func rowFor(subsystem, node string) (access, bool) {
	for _, row := range nodes {
		if row.subsystem == subsystem && rules.Match(row.node, node) {
			return row, true
		}
	}
	return access{}, false
}

// Accounts are the numbers of users and groups that rules may name.
type Accounts struct{ Users, Groups map[string]int }

// ReadAccounts reads passwd and group of the folder etc. Names of the table
// above that they lack have its numbers.
func ReadAccounts(etc string) (Accounts, error) {
	a := Accounts{Users: map[string]int{"root": 0}, Groups: map[string]int{}}
	for name, id := range groups {
		a.Groups[name] = id
	}
	for file, to := range map[string]map[string]int{"passwd": a.Users, "group": a.Groups} {
		data, err := os.ReadFile(filepath.Join(etc, file))
		if err != nil {
			return Accounts{}, err
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Split(line, ":")
			if len(fields) < 3 {
				continue
			}
			if id, err := strconv.Atoi(strings.TrimSpace(fields[2])); err == nil {
				to[fields[0]] = id
			}
		}
	}
	return a, nil
}

// find is the number of a name, which may be a number itself.
func find(known map[string]int, what, name string) (int, error) {
	if id, ok := known[name]; ok {
		return id, nil
	}
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	return 0, fmt.Errorf("no %s %q", what, name)
}
