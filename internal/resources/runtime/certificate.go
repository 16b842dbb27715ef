package runtime

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// CertificateStatusType is the resource type of CertificateStatus.
const CertificateStatusType = resource.Type("CertificateStatuses.runtime.talos.dev")

// CertificateStatus tells of a certificate that this node serves or speaks with, or of an authority
// that it accepts, what everybody may know who meets it. It has no key: readers may see it.
type CertificateStatus = typed.Resource[CertificateStatusSpec, certificateStatusDefinition]

// CertificateStatusSpec is the public part of a certificate. Times are in RFC 3339's form.
type CertificateStatusSpec struct {
	Subject     string   `yaml:"subject" protobuf:"1"`
	Issuer      string   `yaml:"issuer" protobuf:"2"`
	Serial      string   `yaml:"serial" protobuf:"3"`
	NotBefore   string   `yaml:"notBefore" protobuf:"4"`
	NotAfter    string   `yaml:"notAfter" protobuf:"5"`
	Names       []string `yaml:"names" protobuf:"6"`       // host names and addresses that it is valid for
	Fingerprint string   `yaml:"fingerprint" protobuf:"7"` // SHA-256 of the certificate, hexadecimal
	// KeyFingerprint is the SHA-256 of the public key, base64: what clients compare a machine in
	// maintenance mode with.
	KeyFingerprint string `yaml:"keyFingerprint" protobuf:"8"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s CertificateStatusSpec) DeepCopy() CertificateStatusSpec { return object.Clone(s) }

type certificateStatusDefinition struct{}

func (certificateStatusDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             CertificateStatusType,
		Aliases:          []resource.Type{"certs", "certificates"},
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "Subject", JSONPath: `{.subject}`},
			{Name: "Issuer", JSONPath: `{.issuer}`},
			{Name: "Expires", JSONPath: `{.notAfter}`},
		},
	}
}

// NewCertificateStatus returns an empty CertificateStatus under id.
func NewCertificateStatus(id resource.ID) *CertificateStatus {
	return typed.NewResource[CertificateStatusSpec, certificateStatusDefinition](resource.NewMetadata(Namespace, CertificateStatusType, id, resource.VersionUndefined), CertificateStatusSpec{})
}
