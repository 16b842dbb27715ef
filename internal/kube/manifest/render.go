package manifest

import (
	"encoding/base64"
	"slices"
	"time"

	"talos/internal/resources/k8s"
	"talos/internal/resources/secrets"
)

// Manifest is a named group of objects; groups are applied in the order of
// their names.
type Manifest struct {
	Name    string
	Objects []map[string]any
}

type (
	m = map[string]any
	l = []any
)

// Render makes the bootstrap manifests, as they should be at a time.
func Render(c k8s.BootstrapManifestsConfigSpec, root secrets.KubernetesRootSecretsSpec, now time.Time) []Manifest {
	out := []Manifest{
		{"00-bootstrap-token", []m{bootstrapToken(root, now)}},
		{"01-node-bootstrap", nodeBootstrap()},
		{"02-kubelet-access", kubeletAccess()},
	}
	if c.FlannelEnabled {
		out = append(out, Manifest{"05-flannel", flannel(c)})
	}
	if c.ProxyEnabled {
		out = append(out, Manifest{"10-kube-proxy", proxy(c)})
	}
	if c.CoreDNSEnabled {
		out = append(out, Manifest{"11-coredns", coreDNS(c)})
	}
	return out
}

const (
	rbac          = "rbac.authorization.k8s.io/v1"
	bootstrappers = "system:bootstrappers:nodes"
	system        = "kube-system"
)

// The bootstrap token expires unless a control plane node goes on wanting it: one
// that was replaced in the configuration ends by itself. All of them say the same
// time, which changes rarely.
const (
	tokenRenewal = 12 * time.Hour
	tokenLife    = 36 * time.Hour // from the last renewal
)

// bootstrapToken lets new nodes ask for a certificate, and do nothing else.
func bootstrapToken(root secrets.KubernetesRootSecretsSpec, now time.Time) m {
	data := m{}
	for k, v := range map[string]string{
		"token-id":                       root.BootstrapTokenID,
		"token-secret":                   root.BootstrapTokenSecret,
		"usage-bootstrap-authentication": "true",
		"auth-extra-groups":              bootstrappers,
		"expiration":                     now.UTC().Truncate(tokenRenewal).Add(tokenLife).Format(time.RFC3339),
	} {
		data[k] = base64.StdEncoding.EncodeToString([]byte(v))
	}
	return m{
		"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
		"metadata": m{"name": "bootstrap-token-" + root.BootstrapTokenID, "namespace": system},
		"data":     data,
	}
}

// nodeBootstrap lets nodes ask for client certificates. The first is approved by
// package csr, which looks at whose it would be; renewals by the controller
// manager, which signs both.
func nodeBootstrap() []m {
	group := func(name string) m { return m{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name} }
	return []m{
		clusterRoleBinding("system-bootstrap-node-bootstrapper", "system:node-bootstrapper", group(bootstrappers)),
		clusterRoleBinding("system-bootstrap-node-renewal", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", group("system:nodes")),
	}
}

// kubeletAccess lets the API servers call kubelets: logs, exec, port-forward.
func kubeletAccess() []m {
	return []m{clusterRoleBinding("kube-apiserver-kubelet-client", "system:kubelet-api-admin",
		m{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver-kubelet-client"})}
}

func clusterRoleBinding(name, role string, subjects ...m) m {
	var list l
	for _, s := range subjects {
		list = append(list, s)
	}
	return m{
		"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": m{"name": name},
		"roleRef":  m{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
		"subjects": list,
	}
}

func serviceAccount(name string) m {
	return m{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": m{"name": name, "namespace": system}}
}

func serviceAccountSubject(name string) m {
	return m{"kind": "ServiceAccount", "name": name, "namespace": system}
}

func rule(groups, resources, verbs []string) m {
	return m{"apiGroups": anys(groups), "resources": anys(resources), "verbs": anys(verbs)}
}

func anys(in []string) l {
	out := make(l, len(in))
	for i, v := range in {
		out[i] = v
	}
	return out
}

// everywhere tolerates every taint: without such pods the node is not one.
func everywhere() l { return l{m{"operator": "Exists"}} }

func hostPath(name, path, kind string) m {
	v := m{"path": path}
	if kind != "" {
		v["type"] = kind
	}
	return m{"name": name, "hostPath": v}
}

func configMapVolume(name string) m { return m{"name": name, "configMap": m{"name": name}} }

func mount(name, path string, readonly bool) m {
	out := m{"name": name, "mountPath": path}
	if readonly {
		out["readOnly"] = true
	}
	return out
}

func field(name, path string) m {
	return m{"name": name, "valueFrom": m{"fieldRef": m{"apiVersion": "v1", "fieldPath": path}}}
}

// apiEnv sends client libraries to an address of the API other than that of the
// service "kubernetes", which works only after kube-proxy has seen it.
func apiEnv(host, port string) l {
	return l{m{"name": "KUBERNETES_SERVICE_HOST", "value": host}, m{"name": "KUBERNETES_SERVICE_PORT", "value": port}}
}

func daemonSet(name string, annotations m, spec m) m {
	selector := m{"k8s-app": name}
	return m{
		"apiVersion": "apps/v1", "kind": "DaemonSet",
		"metadata": m{"name": name, "namespace": system, "labels": selector},
		"spec": m{
			"selector":       m{"matchLabels": selector},
			"updateStrategy": m{"type": "RollingUpdate", "rollingUpdate": m{"maxUnavailable": 1}},
			"template":       m{"metadata": m{"labels": m{"k8s-app": name, "tier": "node"}, "annotations": annotations}, "spec": spec},
		},
	}
}

// merged is ours followed by the user's flags, of which the later wins.
func merged(ours, user []string) l { return anys(slices.Concat(ours, user)) }
