package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"talos/internal/pki"
)

// ClientRole is the role of the client certificate that Generate makes.
const ClientRole = "os:admin"

// ClientLifetime is how long that certificate is valid.
const ClientLifetime = pki.YearLifetime

// Input is what a cluster's configurations are generated from. ClusterName,
// Endpoint and Secrets must be given.
type Input struct {
	ClusterName       string
	Endpoint          string // of the API server, such as https://10.5.0.1:6443
	Secrets           *Secrets
	KubernetesVersion string   // default DefaultKubernetesVersion; with or without v
	AdditionalSANs    []string // of apid and the API server
	DNSDomain         string   // default cluster.local
	InstallDisk       string   // such as /dev/sda; none: no install section
	InstallImage      string
	RegistryMirrors   map[string]RegistryMirror
	RegistryConfig    map[string]Registry
	PodSubnets        []string // default 10.244.0.0/16
	ServiceSubnets    []string // default 10.96.0.0/12
	Schedulable       bool     // control plane nodes take ordinary pods

	Endpoints []string         // of the API, for the client's configuration
	Clock     func() time.Time // default time.Now
}

// Bundle is a generated cluster: a configuration for each kind of node, and
// what a client gets in.
type Bundle struct {
	ControlPlane *Config
	Worker       *Config
	Client       Client
}

// Client is what a talosconfig context is made of, all PEM.
type Client struct {
	Context   string
	Endpoints []string
	CA        []byte
	Crt       []byte
	Key       []byte
}

// Generate makes the configurations of a cluster. They pass Load.
func Generate(in Input) (*Bundle, error) {
	if in.Secrets == nil {
		return nil, errors.New("generate configuration: no secrets given")
	}
	if want := clusterName(in.ClusterName); want != "" {
		return nil, fmt.Errorf("generate configuration: cluster name: got %q, want %s", in.ClusterName, want)
	}
	if in.Clock == nil {
		in.Clock = time.Now
	}
	if in.KubernetesVersion == "" {
		in.KubernetesVersion = DefaultKubernetesVersion
	}
	client, err := NewClient(in.Secrets, []string{ClientRole}, ClientLifetime, in.Clock())
	if err != nil {
		return nil, fmt.Errorf("generate client certificate: %w", err)
	}
	client.Context, client.Endpoints = in.ClusterName, in.Endpoints
	b := &Bundle{
		ControlPlane: &Config{Version: Version, Machine: in.machine(TypeControlPlane), Cluster: in.controlPlane()},
		Worker:       &Config{Version: Version, Machine: in.machine(TypeWorker), Cluster: in.worker()},
		Client:       *client,
	}
	for _, c := range []*Config{b.ControlPlane, b.Worker} {
		doc, err := c.Bytes()
		if err != nil {
			return nil, err
		}
		if _, _, err := Load("generated "+c.Machine.Type+" configuration", doc); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// NewClient makes a client certificate for the machines' API: Ed25519, its
// Organization the roles.
func NewClient(s *Secrets, roles []string, lifetime time.Duration, now time.Time) (*Client, error) {
	ca, err := pki.ParseCA(s.Certs.OS.Crt, s.Certs.OS.Key)
	if err != nil {
		return nil, err
	}
	pair, err := ca.Issue(pki.Template{CommonName: strings.Join(roles, ","), Organization: roles, Client: true, Lifetime: lifetime}, now)
	if err != nil {
		return nil, err
	}
	return &Client{CA: s.Certs.OS.Crt, Crt: pair.Crt, Key: pair.Key}, nil
}

func (in Input) machine(kind string) *Machine {
	yes := true
	m := &Machine{
		Type: kind, Token: in.Secrets.TrustdInfo.Token, CA: in.Secrets.Certs.OS, CertSANs: slices.Clone(in.AdditionalSANs),
		Kubelet: &Kubelet{
			Image:                               KubernetesImage(KubeletRepository, in.KubernetesVersion),
			DefaultRuntimeSeccompProfileEnabled: &yes, DisableManifestsDirectory: &yes,
		},
		Network: &Network{},
		Features: &Features{
			RBAC: &yes, StableHostname: &yes, ApidCheckExtKeyUsage: &yes, DiskQuotaSupport: &yes,
			HostDNS: &HostDNS{Enabled: &yes, ForwardKubeDNSToHost: &yes}, NodeAddressSortAlgorithm: "v2",
		},
	}
	if kind == TypeWorker {
		m.CA = &CertificateAndKey{Crt: m.CA.Crt}
	}
	if in.InstallDisk != "" || in.InstallImage != "" {
		m.Install = &Install{Disk: in.InstallDisk, Image: in.InstallImage}
	}
	if len(in.RegistryMirrors)+len(in.RegistryConfig) > 0 {
		m.Registries = &Registries{Mirrors: in.RegistryMirrors, Config: in.RegistryConfig}
	}
	return m
}

// worker is what every node knows of the cluster.
func (in Input) worker() *Cluster {
	s := in.Secrets
	pods, services := in.PodSubnets, in.ServiceSubnets
	if len(pods) == 0 {
		pods = []string{DefaultPodSubnet}
	}
	if len(services) == 0 {
		services = []string{DefaultServiceSubnet}
	}
	domain := in.DNSDomain
	if domain == "" {
		domain = DefaultDNSDomain
	}
	return &Cluster{
		ID: s.Cluster.ID, Secret: s.Cluster.Secret, ClusterName: in.ClusterName,
		ControlPlane: &ControlPlane{Endpoint: strings.TrimSuffix(in.Endpoint, "/")},
		Network:      &ClusterNetwork{DNSDomain: domain, PodSubnets: pods, ServiceSubnets: services},
		Token:        s.Secrets.BootstrapToken, CA: &CertificateAndKey{Crt: s.Certs.K8s.Crt},
	}
}

func (in Input) controlPlane() *Cluster {
	s, c := in.Secrets, in.worker()
	image := func(repository string) string { return KubernetesImage(repository, in.KubernetesVersion) }
	c.CA, c.AggregatorCA, c.ServiceAccount = s.Certs.K8s, s.Certs.K8sAggregator, s.Certs.K8sServiceAccount
	c.AescbcEncryptionSecret, c.SecretboxEncryptionSecret = s.Secrets.AESCBCEncryptionSecret, s.Secrets.SecretboxEncryptionSecret
	c.Etcd = &Etcd{CA: s.Certs.Etcd}
	c.APIServer = &APIServer{Image: image(APIServerRepository), CertSANs: in.serverSANs()}
	c.ControllerManager = &ControllerManager{Image: image(ControllerManagerRepository)}
	c.Scheduler = &Scheduler{Image: image(SchedulerRepository)}
	c.Proxy = &Proxy{Image: image(ProxyRepository)}
	if in.Schedulable {
		c.AllowSchedulingOnControlPlanes = &in.Schedulable
	}
	return c
}

// serverSANs are the endpoint's host and the additional names, each once.
func (in Input) serverSANs() []string {
	var out []string
	host := (&Config{Cluster: &Cluster{ControlPlane: &ControlPlane{Endpoint: in.Endpoint}}}).Endpoint().Hostname()
	for _, san := range append([]string{host}, in.AdditionalSANs...) {
		if san != "" && !slices.Contains(out, san) {
			out = append(out, san)
		}
	}
	return out
}
