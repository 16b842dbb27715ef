// Package secrets holds the keys and certificates of this node as resources:
// the authorities as the configuration gives them, and what was issued under
// them. Every type is sensitive: readable over the API by administrators only,
// and on the node by whose secret it is. Package talos/internal/secrets writes
// them all.
package secrets

import (
	"net/netip"

	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
	"talos/internal/resources/pem"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("secrets")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewApiCertificate("")),
		object.Define(NewCertSAN("")),
		object.Define(NewEtcdSecrets("")),
		object.Define(NewEtcdRootSecrets("")),
		object.Define(NewKubeletSecrets("")),
		object.Define(NewKubernetesSecrets("")),
		object.Define(NewKubernetesDynamicCerts("")),
		object.Define(NewKubernetesRootSecrets("")),
		object.Define(NewOSRootSecrets("")),
		object.Define(NewTrustdCertificate("")),
	}
}

// ApiCertificateType is the resource type of ApiCertificate.
const ApiCertificateType = resource.Type("ApiCertificates.secrets.talos.dev")

// ApiCertificate is what apid speaks and serves with, under id api; 24 hours long.
type ApiCertificate = typed.Resource[ApiCertificateSpec, apiCertificateDefinition]

// ApiCertificateSpec holds apid's certificates. Client is for calls to other nodes and lets its
// holder speak for a caller; control plane nodes alone have it.
type ApiCertificateSpec struct {
	AcceptedCAs             []*pem.Certificate     `yaml:"acceptedCAs" protobuf:"4"`
	Client                  *pem.CertificateAndKey `yaml:"client" protobuf:"2"`
	Server                  *pem.CertificateAndKey `yaml:"server" protobuf:"3"`
	SkipVerifyingClientCert bool                   `yaml:"skipVerifyingClientCert" protobuf:"5"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s ApiCertificateSpec) DeepCopy() ApiCertificateSpec { return object.Clone(s) }

type apiCertificateDefinition struct{}

func (apiCertificateDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             ApiCertificateType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewApiCertificate returns an empty ApiCertificate under id.
func NewApiCertificate(id resource.ID) *ApiCertificate {
	return typed.NewResource[ApiCertificateSpec, apiCertificateDefinition](resource.NewMetadata(Namespace, ApiCertificateType, id, resource.VersionUndefined), ApiCertificateSpec{})
}

// CertSANType is the resource type of CertSAN.
const CertSANType = resource.Type("CertSANs.secrets.talos.dev")

// CertSAN is what a server's certificate is valid for, under id api.
type CertSAN = typed.Resource[CertSANSpec, certSANDefinition]

// CertSANSpec lists addresses and names; FQDN is the node's own name.
type CertSANSpec struct {
	IPs      []netip.Addr `yaml:"ips" protobuf:"1"`
	DNSNames []string     `yaml:"dnsNames" protobuf:"2"`
	FQDN     string       `yaml:"fqdn" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s CertSANSpec) DeepCopy() CertSANSpec { return object.Clone(s) }

type certSANDefinition struct{}

func (certSANDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             CertSANType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewCertSAN returns an empty CertSAN under id.
func NewCertSAN(id resource.ID) *CertSAN {
	return typed.NewResource[CertSANSpec, certSANDefinition](resource.NewMetadata(Namespace, CertSANType, id, resource.VersionUndefined), CertSANSpec{})
}

// EtcdSecretsType is the resource type of EtcdSecrets.
const EtcdSecretsType = resource.Type("EtcdSecrets.secrets.talos.dev")

// EtcdSecrets are the certificates around etcd, under id etcd; a year long.
type EtcdSecrets = typed.Resource[EtcdSecretsSpec, etcdSecretsDefinition]

// EtcdSecretsSpec holds what etcd serves clients and peers with, what machined administers
// it with, and what the API server speaks to it with.
type EtcdSecretsSpec struct {
	Etcd          *pem.CertificateAndKey `yaml:"etcd" protobuf:"1"`
	EtcdPeer      *pem.CertificateAndKey `yaml:"etcdPeer" protobuf:"2"`
	EtcdAdmin     *pem.CertificateAndKey `yaml:"etcdAdmin" protobuf:"3"`
	EtcdAPIServer *pem.CertificateAndKey `yaml:"etcdAPIServer" protobuf:"4"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EtcdSecretsSpec) DeepCopy() EtcdSecretsSpec { return object.Clone(s) }

type etcdSecretsDefinition struct{}

func (etcdSecretsDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EtcdSecretsType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewEtcdSecrets returns an empty EtcdSecrets under id.
func NewEtcdSecrets(id resource.ID) *EtcdSecrets {
	return typed.NewResource[EtcdSecretsSpec, etcdSecretsDefinition](resource.NewMetadata(Namespace, EtcdSecretsType, id, resource.VersionUndefined), EtcdSecretsSpec{})
}

// EtcdRootSecretsType is the resource type of EtcdRootSecrets.
const EtcdRootSecretsType = resource.Type("EtcdRootSecrets.secrets.talos.dev")

// EtcdRootSecrets is etcd's authority, under id etcd; control plane nodes only.
type EtcdRootSecrets = typed.Resource[EtcdRootSecretsSpec, etcdRootSecretsDefinition]

// EtcdRootSecretsSpec holds the authority with its key.
type EtcdRootSecretsSpec struct {
	EtcdCA *pem.CertificateAndKey `yaml:"etcdCA" protobuf:"1"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s EtcdRootSecretsSpec) DeepCopy() EtcdRootSecretsSpec { return object.Clone(s) }

type etcdRootSecretsDefinition struct{}

func (etcdRootSecretsDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             EtcdRootSecretsType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewEtcdRootSecrets returns an empty EtcdRootSecrets under id.
func NewEtcdRootSecrets(id resource.ID) *EtcdRootSecrets {
	return typed.NewResource[EtcdRootSecretsSpec, etcdRootSecretsDefinition](resource.NewMetadata(Namespace, EtcdRootSecretsType, id, resource.VersionUndefined), EtcdRootSecretsSpec{})
}

// KubeletSecretsType is the resource type of KubeletSecrets.
const KubeletSecretsType = resource.Type("KubeletSecrets.secrets.talos.dev")

// KubeletSecrets is what the kubelet joins with, under id kubelet.
type KubeletSecrets = typed.Resource[KubeletSecretsSpec, kubeletSecretsDefinition]

// KubeletSecretsSpec holds the API server's URL, the authorities to trust there and the
// bootstrap token.
type KubeletSecretsSpec struct {
	Endpoint              object.URL         `yaml:"endpoint" protobuf:"1"`
	EndpointTLSServerName string             `yaml:"endpointTLSServerName" protobuf:"6"`
	AcceptedCAs           []*pem.Certificate `yaml:"acceptedCAs" protobuf:"5"`
	BootstrapTokenID      string             `yaml:"bootstrapTokenID" protobuf:"3"`
	BootstrapTokenSecret  string             `yaml:"bootstrapTokenSecret" protobuf:"4"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KubeletSecretsSpec) DeepCopy() KubeletSecretsSpec { return object.Clone(s) }

type kubeletSecretsDefinition struct{}

func (kubeletSecretsDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KubeletSecretsType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewKubeletSecrets returns an empty KubeletSecrets under id.
func NewKubeletSecrets(id resource.ID) *KubeletSecrets {
	return typed.NewResource[KubeletSecretsSpec, kubeletSecretsDefinition](resource.NewMetadata(Namespace, KubeletSecretsType, id, resource.VersionUndefined), KubeletSecretsSpec{})
}

// KubernetesSecretsType is the resource type of KubernetesSecrets.
const KubernetesSecretsType = resource.Type("KubernetesSecrets.secrets.talos.dev")

// KubernetesSecrets are the kubeconfigs that this node hands out, under id k8s-secrets.
type KubernetesSecrets = typed.Resource[KubernetesSecretsSpec, kubernetesSecretsDefinition]

// KubernetesSecretsSpec holds whole kubeconfigs. All but AdminKubeconfig go to this node's own API
// server.
type KubernetesSecretsSpec struct {
	SchedulerKubeconfig         string `yaml:"schedulerKubeconfig" protobuf:"4"`
	ControllerManagerKubeconfig string `yaml:"controllerManagerKubeconfig" protobuf:"5"`
	LocalhostAdminKubeconfig    string `yaml:"localhostAdminKubeconfig" protobuf:"6"`
	AdminKubeconfig             string `yaml:"adminKubeconfig" protobuf:"7"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KubernetesSecretsSpec) DeepCopy() KubernetesSecretsSpec { return object.Clone(s) }

type kubernetesSecretsDefinition struct{}

func (kubernetesSecretsDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KubernetesSecretsType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewKubernetesSecrets returns an empty KubernetesSecrets under id.
func NewKubernetesSecrets(id resource.ID) *KubernetesSecrets {
	return typed.NewResource[KubernetesSecretsSpec, kubernetesSecretsDefinition](resource.NewMetadata(Namespace, KubernetesSecretsType, id, resource.VersionUndefined), KubernetesSecretsSpec{})
}

// KubernetesDynamicCertsType is the resource type of KubernetesDynamicCerts.
const KubernetesDynamicCertsType = resource.Type("KubernetesDynamicCerts.secrets.talos.dev")

// KubernetesDynamicCerts are the API server's certificates, under id k8s-certs; a year long.
type KubernetesDynamicCerts = typed.Resource[KubernetesDynamicCertsSpec, kubernetesDynamicCertsDefinition]

// KubernetesDynamicCertsSpec holds what the API server serves with, what it speaks to kubelets
// with, and what it speaks to aggregated API servers with.
type KubernetesDynamicCertsSpec struct {
	APIServer              *pem.CertificateAndKey `yaml:"apiServer" protobuf:"1"`
	APIServerKubeletClient *pem.CertificateAndKey `yaml:"apiServerKubeletClient" protobuf:"2"`
	FrontProxy             *pem.CertificateAndKey `yaml:"frontProxy" protobuf:"3"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KubernetesDynamicCertsSpec) DeepCopy() KubernetesDynamicCertsSpec { return object.Clone(s) }

type kubernetesDynamicCertsDefinition struct{}

func (kubernetesDynamicCertsDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KubernetesDynamicCertsType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewKubernetesDynamicCerts returns an empty KubernetesDynamicCerts under id.
func NewKubernetesDynamicCerts(id resource.ID) *KubernetesDynamicCerts {
	return typed.NewResource[KubernetesDynamicCertsSpec, kubernetesDynamicCertsDefinition](resource.NewMetadata(Namespace, KubernetesDynamicCertsType, id, resource.VersionUndefined), KubernetesDynamicCertsSpec{})
}

// KubernetesRootSecretsType is the resource type of KubernetesRootSecrets.
const KubernetesRootSecretsType = resource.Type("KubernetesRootSecrets.secrets.talos.dev")

// KubernetesRootSecrets is what Kubernetes's secrets are made from, under id k8s; control plane nodes only.
type KubernetesRootSecrets = typed.Resource[KubernetesRootSecretsSpec, kubernetesRootSecretsDefinition]

// KubernetesRootSecretsSpec holds authorities, keys and names as the configuration has them.
// APIServerIPs are the service kubernetes's own addresses.
type KubernetesRootSecretsSpec struct {
	Name                       string                 `yaml:"name" protobuf:"1"`
	Endpoint                   object.URL             `yaml:"endpoint" protobuf:"2"`
	LocalEndpoint              object.URL             `yaml:"local_endpoint" protobuf:"3"`
	CertSANs                   []string               `yaml:"certSANs" protobuf:"4"`
	APIServerIPs               []netip.Addr           `yaml:"apiServerIPs" protobuf:"14"`
	DNSDomain                  string                 `yaml:"dnsDomain" protobuf:"6"`
	IssuingCA                  *pem.CertificateAndKey `yaml:"issuingCA" protobuf:"7"`
	AcceptedCAs                []*pem.Certificate     `yaml:"acceptedCAs" protobuf:"15"`
	AggregatorCA               *pem.CertificateAndKey `yaml:"aggregatorCA" protobuf:"9"`
	AcceptedAggregatorCAs      []*pem.Certificate     `yaml:"acceptedAggregatorCAs" protobuf:"17"`
	ServiceAccount             *pem.Key               `yaml:"serviceAccount" protobuf:"8"`
	ServiceAccountAcceptedKeys []*pem.Key             `yaml:"serviceAccountAcceptedKeys" protobuf:"18"`
	IssuerURL                  string                 `yaml:"issuerURL" protobuf:"19"`
	AcceptedIssuers            []string               `yaml:"acceptedIssuers" protobuf:"20"`
	APIAudiences               []string               `yaml:"apiAudiences" protobuf:"21"`
	AesCBCEncryptionSecret     string                 `yaml:"aesCBCEncryptionSecret" protobuf:"10"`
	BootstrapTokenID           string                 `yaml:"bootstrapTokenID" protobuf:"11"`
	BootstrapTokenSecret       string                 `yaml:"bootstrapTokenSecret" protobuf:"12"`
	SecretboxEncryptionSecret  string                 `yaml:"secretboxEncryptionSecret" protobuf:"13"`
	EtcdEncryptionConfig       object.Map             `yaml:"etcdEncryptionConfig" protobuf:"16"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s KubernetesRootSecretsSpec) DeepCopy() KubernetesRootSecretsSpec { return object.Clone(s) }

type kubernetesRootSecretsDefinition struct{}

func (kubernetesRootSecretsDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             KubernetesRootSecretsType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewKubernetesRootSecrets returns an empty KubernetesRootSecrets under id.
func NewKubernetesRootSecrets(id resource.ID) *KubernetesRootSecrets {
	return typed.NewResource[KubernetesRootSecretsSpec, kubernetesRootSecretsDefinition](resource.NewMetadata(Namespace, KubernetesRootSecretsType, id, resource.VersionUndefined), KubernetesRootSecretsSpec{})
}

// OSRootSecretsType is the resource type of OSRootSecrets.
const OSRootSecretsType = resource.Type("OSRootSecrets.secrets.talos.dev")

// OSRootSecrets is the operating system's authority, under id os.
type OSRootSecrets = typed.Resource[OSRootSecretsSpec, oSRootSecretsDefinition]

// OSRootSecretsSpec holds the authority, its key on control plane nodes only, and the token that
// nodes join with.
type OSRootSecretsSpec struct {
	IssuingCA       *pem.CertificateAndKey `yaml:"issuingCA" protobuf:"1"`
	AcceptedCAs     []*pem.Certificate     `yaml:"acceptedCAs" protobuf:"5"`
	CertSANIPs      []netip.Addr           `yaml:"certSANIPs" protobuf:"2"`
	CertSANDNSNames []string               `yaml:"certSANDNSNames" protobuf:"3"`
	Token           string                 `yaml:"token" protobuf:"4"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s OSRootSecretsSpec) DeepCopy() OSRootSecretsSpec { return object.Clone(s) }

type oSRootSecretsDefinition struct{}

func (oSRootSecretsDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             OSRootSecretsType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewOSRootSecrets returns an empty OSRootSecrets under id.
func NewOSRootSecrets(id resource.ID) *OSRootSecrets {
	return typed.NewResource[OSRootSecretsSpec, oSRootSecretsDefinition](resource.NewMetadata(Namespace, OSRootSecretsType, id, resource.VersionUndefined), OSRootSecretsSpec{})
}

// TrustdCertificateType is the resource type of TrustdCertificate.
const TrustdCertificateType = resource.Type("TrustdCertificates.secrets.talos.dev")

// TrustdCertificate is what trustd serves with, under id trustd; 24 hours long; control plane nodes only.
type TrustdCertificate = typed.Resource[TrustdCertificateSpec, trustdCertificateDefinition]

// TrustdCertificateSpec holds trustd's certificate and the authorities that clients may come from.
type TrustdCertificateSpec struct {
	AcceptedCAs []*pem.Certificate     `yaml:"acceptedCAs" protobuf:"3"`
	Server      *pem.CertificateAndKey `yaml:"server" protobuf:"2"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s TrustdCertificateSpec) DeepCopy() TrustdCertificateSpec { return object.Clone(s) }

type trustdCertificateDefinition struct{}

func (trustdCertificateDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             TrustdCertificateType,
		DefaultNamespace: Namespace,
		Sensitivity:      meta.Sensitive,
	}
}

// NewTrustdCertificate returns an empty TrustdCertificate under id.
func NewTrustdCertificate(id resource.ID) *TrustdCertificate {
	return typed.NewResource[TrustdCertificateSpec, trustdCertificateDefinition](resource.NewMetadata(Namespace, TrustdCertificateType, id, resource.VersionUndefined), TrustdCertificateSpec{})
}
