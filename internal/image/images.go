package image

import (
	"io/fs"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const caCertificates = "/etc/ssl/certs/ca-certificates.crt"

// searchPath is PATH in our images: everything lies in one folder.
const searchPath = "PATH=/usr/local/bin:/usr/bin:/bin"

// Images describes every container image that a cluster starts with: etcd, the
// cluster's add-ons, the test image, and for each of the named Kubernetes
// components (the first is the release's) its five programs. Names and tags are
// upstream's, so that manifests need no change.
func Images(c Components, kubernetes ...string) ([]Image, error) {
	b := &builder{components: c, base: baseLayer(), nft: nftLayer()}
	var images []Image
	for _, k := range kubernetes {
		images = append(images, b.kubernetes(k)...)
	}
	images = append(images, b.etcd(), b.coredns(), b.flannel(), b.pause(), b.agnhost(kubernetes[0]))
	return images, b.err
}

// builder holds the layers that images share.
type builder struct {
	components Components
	base       *Tree
	nft        *Tree
	err        error
}

func (b *builder) version(component, file string) string {
	v, err := b.components.Version(component, file)
	if b.err == nil {
		b.err = err
	}
	return v
}

// baseLayer is what a statically linked program may look for.
func baseLayer() *Tree {
	t := new(Tree)
	t.MergeUsr()
	t.Dir("tmp", fs.ModeSticky|0o777)
	t.Dir("usr/bin", 0o755)
	t.Dir("usr/lib", 0o755)
	t.Dir("var", 0o755)
	t.Link("var/run", "/run")
	t.Dir("run", 0o755)
	t.File("etc/ssl/certs/ca-certificates.crt", caCertificates, 0o644)
	t.Data("etc/nsswitch.conf", nsswitch)
	t.Data("etc/passwd", `root:x:0:0::/root:/sbin/nologin
nobody:x:65534:65534::/nonexistent:/sbin/nologin
nonroot:x:65532:65532::/home/nonroot:/sbin/nologin
`)
	t.Data("etc/group", "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n")
	t.Dir("home/nonroot", 0o755)
	return t
}

func nftLayer() *Tree {
	t := new(Tree)
	t.Program("/usr/sbin/nft")
	return t
}

// kubernetes makes five images around one layer: the multi-call binary. A node
// pulls, unpacks and maps it once. The layer comes before those that differ,
// because a runtime knows an unpacked layer by all that lie below it.
func (b *builder) kubernetes(component string) []Image {
	v := b.version(component, "version")
	all := new(Tree)
	all.File("usr/local/bin/kubernetes", b.components.Path(component, "kubernetes"), 0o755)

	image := func(repository, name string, more ...*Tree) Image {
		own := new(Tree)
		own.Link("usr/local/bin/"+name, "kubernetes")
		return Image{
			Ref:    repository + "/" + name + ":" + v,
			Layers: slices.Concat([]*Tree{b.base, all}, more, []*Tree{own}),
			// Upstream's entry point is a log redirector that needs the program's
			// name as argument; manifests give the whole command in both cases.
			Config: v1.Config{Entrypoint: []string{"/usr/local/bin/" + name}, Env: []string{searchPath}},
		}
	}
	const upstream = "registry.k8s.io"
	return []Image{
		image(upstream, "kube-apiserver"),
		image(upstream, "kube-controller-manager"),
		image(upstream, "kube-scheduler"),
		image(upstream, "kube-proxy", b.nft),
		image("registry.talos.dev", "kubelet", kubeletLayer()),
	}
}

// kubeletLayer has the two programs that the kubelet calls for volumes, and a
// place for each folder and file of the node that is bound into its container.
func kubeletLayer() *Tree {
	t := new(Tree)
	t.Program("/usr/bin/mount")
	t.Program("/usr/bin/umount")
	for _, dir := range []string{
		"boot", "dev", "etc/cni", "etc/kubernetes", "etc/ssl", "lib/modules", "mnt", "opt",
		"proc", "run", "sys", "system", "usr/lib/cni", "usr/libexec/kubernetes", "var",
	} {
		t.Dir(dir, 0o755)
	}
	for _, file := range []string{"etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf"} {
		t.Data(file, "")
	}
	t.Data("etc/os-release", "NAME=\"Talos\"\nID=talos\nPRETTY_NAME=\"Talos\"\n")
	return t
}

func (b *builder) etcd() Image {
	t := new(Tree)
	t.File("usr/local/bin/etcd", b.components.Path("etcd", "etcd"), 0o755)
	t.Link("usr/local/bin/etcdutl", "etcd")
	t.Dir("var/lib/etcd", 0o700)
	return Image{
		Ref:    "registry.k8s.io/etcd:" + b.version("etcd", "version"),
		Layers: []*Tree{b.base, t},
		Config: v1.Config{Cmd: []string{"/usr/local/bin/etcd"}, Env: []string{searchPath}},
	}
}

func (b *builder) coredns() Image {
	t := new(Tree)
	t.File("coredns", b.components.Path("coredns", "coredns"), 0o755)
	return Image{
		Ref:    "registry.k8s.io/coredns/coredns:" + b.version("coredns", "version"),
		Layers: []*Tree{b.base, t},
		Config: v1.Config{
			Entrypoint: []string{"/coredns"},
			WorkingDir: "/",
			// As upstream, whose binary has the file capability to bind port 53.
			// Ours has none and relies on the runtime's unprivileged ports.
			User:         "65532:65532",
			ExposedPorts: map[string]struct{}{"53/tcp": {}, "53/udp": {}},
			Env:          []string{searchPath},
		},
	}
}

func (b *builder) flannel() Image {
	t := new(Tree)
	t.File("opt/bin/flanneld", b.components.Path("flannel", "flanneld"), 0o755)
	for _, dir := range []string{"etc/cni/net.d", "etc/kube-flannel", "run/flannel", "run/cni"} {
		t.Dir(dir, 0o755)
	}
	return Image{
		Ref:    "ghcr.io/flannel-io/flannel:" + b.version("flannel", "version"),
		Layers: []*Tree{b.base, b.nft, t},
		Config: v1.Config{Entrypoint: []string{"/opt/bin/flanneld"}, Env: []string{searchPath}},
	}
}

func (b *builder) pause() Image {
	t := new(Tree)
	t.File("pause", b.components.Path("pause", "pause"), 0o755)
	return Image{
		Ref:    "registry.k8s.io/pause:" + b.version("pause", "version"),
		Layers: []*Tree{t},
		Config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535", Env: []string{searchPath}},
	}
}

func (b *builder) agnhost(component string) Image {
	t := new(Tree)
	t.File("agnhost", b.components.Path(component, "agnhost"), 0o755)
	return Image{
		Ref:    "registry.k8s.io/e2e-test-images/agnhost:" + b.version(component, "agnhost.version"),
		Layers: []*Tree{b.base, t},
		Config: v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Env: []string{searchPath}},
	}
}
