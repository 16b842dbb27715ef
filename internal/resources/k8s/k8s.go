// Package k8s holds what is known of Kubernetes on this node: the settings of
// its components, the static pods and manifests made of them, and what the API
// says about this machine's Node. Package talos/internal/kube writes them all.
package k8s

import (
	"github.com/cosi-project/runtime/pkg/resource"

	"talos/internal/resources/object"
)

// Namespace holds the resources of this family.
const Namespace = resource.Namespace("k8s")

// ControlPlaneNamespace holds what only control plane nodes have.
const ControlPlaneNamespace = resource.Namespace("controlplane")

// Types lists every type of this family.
func Types() []object.Definition {
	return []object.Definition{
		object.Define(NewAdmissionControlConfig("")),
		object.Define(NewAPIServerConfig("")),
		object.Define(NewAuditPolicyConfig("")),
		object.Define(NewAuthenticationConfig("")),
		object.Define(NewAuthorizationConfig("")),
		object.Define(NewConfigStatus("")),
		object.Define(NewControllerManagerConfig("")),
		object.Define(NewSchedulerConfig("")),
		object.Define(NewEndpoint("")),
		object.Define(NewEtcdEncryptionConfig("")),
		object.Define(NewExtraManifestsConfig("")),
		object.Define(NewBootstrapManifestsConfig("")),
		object.Define(NewKubeletConfig("")),
		object.Define(NewKubeletSpec("")),
		object.Define(NewKubeletStatus("")),
		object.Define(NewManifest("")),
		object.Define(NewManifestStatus("")),
		object.Define(NewNodeAnnotationSpec("")),
		object.Define(NewNodeLabelSpec("")),
		object.Define(NewNodeTaintSpec("")),
		object.Define(NewNodeStatus("")),
		object.Define(NewNodeIP("")),
		object.Define(NewNodeIPConfig("")),
		object.Define(NewNodename("")),
		object.Define(NewSecretStatus("")),
		object.Define(NewStaticPod("")),
		object.Define(NewStaticPodServerStatus("")),
		object.Define(NewStaticPodStatus("")),
	}
}
