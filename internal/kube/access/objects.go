package access

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"talos/internal/layout"
)

const (
	manager          = "talos" // of fields, and what our label says
	serviceName      = "talos"
	serviceNamespace = "default"
	group            = "talos.dev"
	crdName          = "serviceaccounts." + group
	labelKey         = "app.kubernetes.io/managed-by"
	configKey        = "config" // of the Secret; pods find it below /var/run/secrets/talos.dev
)

var (
	crds      = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	accounts  = schema.GroupVersionResource{Group: group, Version: "v1alpha1", Resource: "serviceaccounts"}
	services  = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	sliceGVR  = schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
	secretGVR = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	events    = schema.GroupVersionResource{Version: "v1", Resource: "events"}
	leases    = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
)

type (
	m = map[string]any
	l = []any
)

func labels() m { return m{labelKey: manager} }

func mine(o *unstructured.Unstructured) bool { return o.GetLabels()[labelKey] == manager }

// definition is the kind by which pods ask for access.
func definition() *unstructured.Unstructured {
	text := m{"type": "string"}
	object := func(properties m) m { return m{"type": "object", "properties": properties} }
	return &unstructured.Unstructured{Object: m{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": m{"name": crdName, "labels": labels()},
		"spec": m{
			"group": group, "scope": "Namespaced",
			"names": m{"plural": "serviceaccounts", "singular": "serviceaccount", "kind": "ServiceAccount", "listKind": "ServiceAccountList", "shortNames": l{"tsa"}},
			"versions": l{m{
				"name": "v1alpha1", "served": true, "storage": true,
				"subresources": m{"status": m{}},
				"additionalPrinterColumns": l{
					m{"name": "Roles", "type": "string", "jsonPath": ".spec.roles"},
					m{"name": "Refused", "type": "string", "jsonPath": ".status.failureReason"},
				},
				"schema": m{"openAPIV3Schema": object(m{
					"spec":   object(m{"roles": m{"type": "array", "items": text, "description": "roles of the machines' API"}}),
					"status": object(m{"failureReason": m{"type": "string", "description": "why there is no Secret"}}),
				})},
			}},
		},
	}}
}

// service leads to the API of the control plane nodes.
func service() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: m{
		"apiVersion": "v1", "kind": "Service",
		"metadata": m{"name": serviceName, "namespace": serviceNamespace, "labels": labels()},
		"spec":     m{"ports": l{m{"name": "apid", "port": int64(layout.APIPort), "targetPort": int64(layout.APIPort), "protocol": "TCP"}}},
	}}
}

// endpoints is the addresses of one family behind the Service.
func endpoints(family string, list []netip.Addr) *unstructured.Unstructured {
	var out l
	for _, a := range list {
		out = append(out, m{"addresses": l{a.String()}, "conditions": m{"ready": true}})
	}
	suffix := map[string]string{"IPv4": "-4", "IPv6": "-6"}[family]
	own := labels()
	own["kubernetes.io/service-name"], own["endpointslice.kubernetes.io/managed-by"] = serviceName, group
	return &unstructured.Unstructured{Object: m{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata":    m{"name": serviceName + suffix, "namespace": serviceNamespace, "labels": own},
		"addressType": family, "endpoints": out,
		"ports": l{m{"name": "apid", "port": int64(layout.APIPort), "protocol": "TCP"}},
	}}
}

// families sorts addresses by what an EndpointSlice holds.
func families(list []netip.Addr) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for _, a := range list {
		if a.Is4() {
			out["IPv4"] = append(out["IPv4"], a)
		} else {
			out["IPv6"] = append(out["IPv6"], a)
		}
	}
	return out
}

// secret holds an account's file, and goes with the account.
func secret(owner *unstructured.Unstructured, file []byte) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: m{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": m{
			"name": owner.GetName(), "namespace": owner.GetNamespace(), "labels": labels(),
			"ownerReferences": l{m{
				"apiVersion": accounts.GroupVersion().String(), "kind": "ServiceAccount", "name": owner.GetName(), "uid": string(owner.GetUID()),
				"controller": true,
			}},
		},
		"stringData": m{configKey: string(file)},
	}}
}

func event(about *unstructured.Unstructured, reason, message, at string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: m{
		"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message,
		"metadata": m{"generateName": about.GetName() + ".", "namespace": about.GetNamespace()},
		"involvedObject": m{
			"apiVersion": about.GetAPIVersion(), "kind": about.GetKind(), "name": about.GetName(), "namespace": about.GetNamespace(),
			"uid": string(about.GetUID()), "resourceVersion": about.GetResourceVersion(),
		},
		"source": m{"component": manager}, "reportingComponent": manager,
		"firstTimestamp": at, "lastTimestamp": at, "count": int64(1),
	}}
}
