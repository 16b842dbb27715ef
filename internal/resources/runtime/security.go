package runtime

import (
	"github.com/cosi-project/runtime/pkg/resource"
	meta "github.com/cosi-project/runtime/pkg/resource/meta/spec"
	"github.com/cosi-project/runtime/pkg/resource/typed"

	"talos/internal/resources/object"
)

// SecurityStateType is the resource type of SecurityState.
const SecurityStateType = resource.Type("SecurityStates.talos.dev")

// SecurityStateID is the id of the one there is.
const SecurityStateID = resource.ID("securitystate")

// SecurityState is how firmware and kernel guard what they start; `verify` says
// more, and checks it.
type SecurityState = typed.Resource[SecurityStateSpec, securityStateDefinition]

// SecurityStateSpec is that of a machine of its own. The fingerprints are empty:
// a kernel image does not carry the certificate that it is signed with, and no
// measurements are signed.
type SecurityStateSpec struct {
	SecureBoot               bool         `yaml:"secureBoot" protobuf:"1"` // the firmware enforces it
	UKISigningKeyFingerprint string       `yaml:"ukiSigningKeyFingerprint,omitempty" protobuf:"2"`
	PCRSigningKeyFingerprint string       `yaml:"pcrSigningKeyFingerprint,omitempty" protobuf:"3"`
	SELinuxState             SELinuxState `yaml:"selinuxState" protobuf:"4"`
	BootedWithUKI            bool         `yaml:"bootedWithUKI" protobuf:"5"`
	FIPSState                FIPSState    `yaml:"fipsState" protobuf:"6"`
	// ModuleSignatureEnforced says that the kernel takes no module without a
	// signature; ours takes none at all.
	ModuleSignatureEnforced bool `yaml:"moduleSignatureEnforced" protobuf:"7"`
}

// DeepCopy returns a copy that shares nothing with s.
func (s SecurityStateSpec) DeepCopy() SecurityStateSpec { return object.Clone(s) }

// SELinuxState says whether SELinux guards processes.
type SELinuxState int32

// FIPSState says whether cryptography is restricted to FIPS 140.
type FIPSState int32

// The states, with the wire's numbers.
const (
	SELinuxDisabled SELinuxState = iota
	SELinuxPermissive
	SELinuxEnforcing
)

// The states, with the wire's numbers.
const (
	FIPSDisabled FIPSState = iota
	FIPSEnabled
	FIPSStrict
)

var (
	selinuxStates = [...]string{SELinuxDisabled: "disabled", SELinuxPermissive: "permissive", SELinuxEnforcing: "enforcing"}
	fipsStates    = [...]string{FIPSDisabled: "disabled", FIPSEnabled: "enabled", FIPSStrict: "strict"}
)

// MarshalText gives the name.
func (s SELinuxState) MarshalText() ([]byte, error) {
	return []byte(enumName(selinuxStates[:], s)), nil
}

// UnmarshalText reads the name.
func (s *SELinuxState) UnmarshalText(text []byte) error { return parseEnum(selinuxStates[:], s, text) }

// MarshalText gives the name.
func (s FIPSState) MarshalText() ([]byte, error) { return []byte(enumName(fipsStates[:], s)), nil }

// UnmarshalText reads the name.
func (s *FIPSState) UnmarshalText(text []byte) error { return parseEnum(fipsStates[:], s, text) }

type securityStateDefinition struct{}

func (securityStateDefinition) ResourceDefinition() meta.ResourceDefinitionSpec {
	return meta.ResourceDefinitionSpec{
		Type:             SecurityStateType,
		DefaultNamespace: Namespace,
		PrintColumns: []meta.PrintColumn{
			{Name: "SecureBoot", JSONPath: `{.secureBoot}`},
			{Name: "UKISigningKeyFingerprint", JSONPath: `{.ukiSigningKeyFingerprint}`},
			{Name: "PCRSigningKeyFingerprint", JSONPath: `{.pcrSigningKeyFingerprint}`},
			{Name: "SELinuxState", JSONPath: `{.selinuxState}`},
			{Name: "ModuleSignatureEnforced", JSONPath: `{.moduleSignatureEnforced}`},
		},
	}
}

// NewSecurityState returns an empty SecurityState under id.
func NewSecurityState(id resource.ID) *SecurityState {
	return typed.NewResource[SecurityStateSpec, securityStateDefinition](resource.NewMetadata(Namespace, SecurityStateType, id, resource.VersionUndefined), SecurityStateSpec{})
}
