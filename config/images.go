package config

import (
	"cmp"
	"strconv"
)

// Versions of what a node runs beside itself. Images keep their upstream
// names; the kubelet, which has no image upstream, has ours.
const (
	DefaultKubernetesVersion = "1.37.1"
	EtcdVersion              = "v3.7.3"
	CoreDNSVersion           = "v1.15.0"
	FlannelVersion           = "v0.26.7"
	PauseVersion             = "3.10.2"

	KubeletRepository           = "registry.talos.dev/kubelet"
	APIServerRepository         = "registry.k8s.io/kube-apiserver"
	ControllerManagerRepository = "registry.k8s.io/kube-controller-manager"
	SchedulerRepository         = "registry.k8s.io/kube-scheduler"
	ProxyRepository             = "registry.k8s.io/kube-proxy"
	EtcdRepository              = "registry.k8s.io/etcd"
	CoreDNSRepository           = "registry.k8s.io/coredns/coredns"
	PauseRepository             = "registry.k8s.io/pause"
	FlannelRepository           = "ghcr.io/flannel-io/flannel"
	InstallerRepository         = "registry.talos.dev/installer"
)

// EtcdImage is the image of etcd where the document names none.
func EtcdImage() string { return EtcdRepository + ":" + EtcdVersion }

// CoreDNSImage is the image of CoreDNS where the document names none.
func CoreDNSImage() string { return CoreDNSRepository + ":" + CoreDNSVersion }

// FlannelImage is the image of flannel.
func FlannelImage() string { return FlannelRepository + ":" + FlannelVersion }

// PauseImage is the image that holds a pod's namespaces.
func PauseImage() string { return PauseRepository + ":" + PauseVersion }

// KubernetesImage is the image of a Kubernetes program in a version, with or without v.
func KubernetesImage(repository, version string) string {
	if version != "" && version[0] != 'v' {
		version = "v" + version
	}
	return repository + ":" + version
}

// KubeletImage is the image of the kubelet.
func (c *Config) KubeletImage() string {
	var set string
	if k := c.machine().Kubelet; k != nil {
		set = k.Image
	}
	return cmp.Or(set, KubernetesImage(KubeletRepository, DefaultKubernetesVersion))
}

// APIServerImage is the image of kube-apiserver.
func (c *Config) APIServerImage() string {
	var set string
	if a := c.cluster().APIServer; a != nil {
		set = a.Image
	}
	return cmp.Or(set, KubernetesImage(APIServerRepository, DefaultKubernetesVersion))
}

// ControllerManagerImage is the image of kube-controller-manager.
func (c *Config) ControllerManagerImage() string {
	var set string
	if m := c.cluster().ControllerManager; m != nil {
		set = m.Image
	}
	return cmp.Or(set, KubernetesImage(ControllerManagerRepository, DefaultKubernetesVersion))
}

// SchedulerImage is the image of kube-scheduler.
func (c *Config) SchedulerImage() string {
	var set string
	if s := c.cluster().Scheduler; s != nil {
		set = s.Image
	}
	return cmp.Or(set, KubernetesImage(SchedulerRepository, DefaultKubernetesVersion))
}

// ProxyImage is the image of kube-proxy.
func (c *Config) ProxyImage() string {
	var set string
	if p := c.cluster().Proxy; p != nil {
		set = p.Image
	}
	return cmp.Or(set, KubernetesImage(ProxyRepository, DefaultKubernetesVersion))
}

// CoreDNSImage is the image of CoreDNS.
func (c *Config) CoreDNSImage() string {
	var set string
	if d := c.cluster().CoreDNS; d != nil {
		set = d.Image
	}
	return cmp.Or(set, CoreDNSImage())
}

// EtcdImage is the image of etcd.
func (c *Config) EtcdImage() string {
	var set string
	if e := c.cluster().Etcd; e != nil {
		set = e.Image
	}
	return cmp.Or(set, EtcdImage())
}

func itoa(n int) string { return strconv.Itoa(n) }
