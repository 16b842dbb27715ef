package image

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"

	"talos/internal/layout"
	"talos/internal/version"
)

const nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"

// RootFS describes the read-only root of a node: our two programs from the
// folder bin, the container runtime, the few Debian programs that no Go library
// replaces, firmware for the kernel's drivers and a list of those, and a list of
// all that. There is no shell, and the test of the finished image (TestAllowlist)
// refuses what is not named in its list.
func RootFS(ctx context.Context, c Components, k KernelFiles, bin, tag string) *Tree {
	t := new(Tree)
	t.MergeUsr()
	addOurs(t, bin)
	addRuntime(t, c)
	addTools(t)
	addKernel(t, k)
	addEtc(t, tag)

	// Where file systems are mounted. /opt and the folders of /etc are bound
	// over from persistent or temporary storage.
	for _, dir := range []string{
		"boot", "dev", "etc/cni", "etc/cri", "etc/kubernetes", "mnt", "opt",
		"proc", "run", "sys", "system", "var",
	} {
		t.Dir(dir, 0o755)
	}
	t.Dir("root", 0o700)
	t.Dir("tmp", fs.ModeSticky|0o777)

	bill, err := Bill(ctx, t, k, tag, nil)
	if err != nil {
		t.fail(err)
	}
	t.Data("usr/share/spdx/talos.spdx.json", string(bill))
	return t
}

// addOurs adds machined, also as the init that kernels look for, and noded
// under each name that it answers to.
func addOurs(t *Tree, bin string) {
	t.File("usr/bin/machined", filepath.Join(bin, "machined"), 0o755)
	t.Link("usr/bin/init", "machined")
	t.File("usr/bin/noded", filepath.Join(bin, "noded"), 0o755)
	for _, name := range []string{"networkd", "timed", "routerd", "apid", "trustd", "sandboxd"} {
		t.Link("usr/bin/"+name, "noded")
	}
}

func addRuntime(t *Tree, c Components) {
	for _, name := range []string{"containerd", "containerd-shim-runc-v2"} {
		t.File("usr/bin/"+name, c.Path("containerd", name), 0o755)
	}
	t.File("usr/bin/runc", c.Path("runc", "runc"), 0o755)
	for _, name := range []string{"bridge", "host-local", "loopback", "portmap"} {
		t.File(layout.CNISystemBinDir+"/"+name, c.Path("cni", name), 0o755)
	}
}

// addTools adds what makes file systems, and nft, which the CNI plugins call.
func addTools(t *Tree) {
	t.Program("/usr/sbin/nft")
	t.Program("/usr/sbin/mkfs.xfs")
	t.Program("/usr/sbin/mke2fs")
	t.Link("usr/bin/mkfs.ext4", "mke2fs")
	t.File("etc/mke2fs.conf", "/etc/mke2fs.conf", 0o644)
	t.Program("/usr/sbin/mkfs.vfat")
}

// OSRelease says which system and version this is, in the root and in kernel
// images.
func OSRelease(tag string) string {
	return fmt.Sprintf("NAME=%q\nID=talos\nVERSION_ID=%s\nPRETTY_NAME=\"%[1]s (%[2]s)\"\n", version.Name, tag)
}

func addEtc(t *Tree, tag string) {
	t.Data("etc/os-release", OSRelease(tag))
	t.Data("etc/nsswitch.conf", nsswitch)
	t.File("etc/ssl/certs/ca-certificates.crt", caCertificates, 0o644)
	for _, name := range []string{"resolv.conf", "hosts", "hostname", "machine-id"} {
		t.Link("etc/"+name, layout.EtcDir+"/"+name)
	}

	users := []struct {
		name string
		id   int
	}{
		{"root", 0},
		{"apid", layout.APIUID},
		{"routerd", layout.RouterUID},
		{"trustd", layout.TrustUID},
		{"networkd", layout.NetworkUID},
		{"timed", layout.TimeUID},
		{"fetchd", layout.FetchUID},
		{"etcd", layout.EtcdUID},
		{"kube-apiserver", layout.APIServerUID},
		{"kube-controller-manager", layout.ManagerUID},
		{"kube-scheduler", layout.SchedulerUID},
		{"nobody", 65534},
	}
	var passwd, group string
	for _, u := range users {
		passwd += fmt.Sprintf("%s:x:%d:%[2]d::/:/sbin/nologin\n", u.name, u.id)
		group += fmt.Sprintf("%s:x:%d:\n", u.name, u.id)
	}
	t.Data("etc/passwd", passwd)
	t.Data("etc/group", group)
}
