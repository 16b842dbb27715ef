package disk

import (
	"regexp"
	"strings"

	"talos/internal/linux/sysfs"
)

// byName are the transports that show in the kernel's name of the disk.
var byName = []struct {
	name      *regexp.Regexp
	transport string
}{
	{regexp.MustCompile(`^nvme\d`), "nvme"},
	{regexp.MustCompile(`^vd[a-z]`), "virtio"},
	{regexp.MustCompile(`^xvd[a-z]`), "xenblk"},
	{regexp.MustCompile(`^mmcblk\d`), "mmc"},
	{regexp.MustCompile(`^pmem\d`), "pmem"},
}

// transport is how the disk is attached. Disks that are SCSI's show it in where
// they are, else in what their host adapter's driver is called.
func transport(dev sysfs.Device) string {
	for _, t := range byName {
		if t.name.MatchString(dev.Name()) {
			return t.transport
		}
	}
	var host string
	for _, part := range strings.Split(dev.Path(), "/") {
		switch {
		case strings.HasPrefix(part, "usb"):
			return "usb"
		case strings.HasPrefix(part, "rport-"):
			return "fc"
		case strings.HasPrefix(part, "session"):
			return "iscsi"
		case strings.HasPrefix(part, "end_device-"):
			return "sas"
		case hostName.MatchString(part):
			host = part
		}
	}
	if host == "" {
		return "" // no hardware: loop, device mapper, RAID
	}
	return hostTransport(adapter(dev, host))
}

var hostName = regexp.MustCompile(`^host\d+$`)

// adapter is the name of the driver of the SCSI host that the disk is behind.
func adapter(dev sysfs.Device, host string) string {
	for up := dev.Parent(); up.Valid(); up = up.Parent() {
		if up.Name() == host {
			return up.Attr("scsi_host/" + host + "/proc_name")
		}
	}
	return ""
}

func hostTransport(driver string) string {
	switch {
	case driver == "ahci", strings.HasPrefix(driver, "sata"):
		return "sata"
	case strings.Contains(driver, "ata"):
		return "ata"
	case driver == "virtio_scsi":
		return "virtio"
	case driver == "ufshcd":
		return "ufs"
	case driver == "":
		return "scsi"
	}
	return driver // megaraid_sas, hv_storvsc, vmw_pvscsi: what people look for
}
