package metal

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/linux/sysfs"
)

// rootDisk is the kernel's name of the disk that the running system is read
// from; "" if it came in the initramfs, from an ISO or the network. device is
// what / is mounted from: the mapper's, over one partition or one file.
func rootDisk(tree sysfs.FS, device uint64) (string, error) {
	at := fmt.Sprintf("/dev/block/%d:%d", unix.Major(device), unix.Minor(device))
	root, err := tree.Device(at)
	if err != nil {
		return "", fmt.Errorf("where the running system is read from: %w", err)
	}
	below := root.Entries("slaves")
	if len(below) != 1 {
		return "", fmt.Errorf("where the running system is read from: %s is over %q, want one device", root.Name(), below)
	}
	under := root.Linked("slaves/" + below[0])
	if !under.Valid() {
		return "", fmt.Errorf("where the running system is read from: %s is no device", below[0])
	}
	if under.Has("partition") {
		return under.Parent().Name(), nil
	}
	if strings.HasPrefix(under.Name(), "loop") {
		return "", nil
	}
	return under.Name(), nil
}

// ownRootDisk is rootDisk of this machine.
func ownRootDisk() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return "", fmt.Errorf("where the running system is read from: %w", err)
	}
	return rootDisk("/sys", st.Dev)
}
