package manifest

import (
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"talos/internal/resources/k8s"
)

// proxyConfig is kube-proxy's configuration. It leaves the kernel's connection
// tracking limits alone: they are the node's, and in a container can't be set.
func proxyConfig(podCIDRs []string, mode string) m {
	return m{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               mode,
		"clusterCIDR":        strings.Join(podCIDRs, ","),
		"bindAddress":        "0.0.0.0",
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"clientConnection":   m{"kubeconfig": "/etc/kube-proxy/kubeconfig"},
		"conntrack": m{
			"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s", "udpTimeout": "0s", "udpStreamTimeout": "0s",
		},
		"nftables": m{"minSyncPeriod": "200ms", "syncPeriod": "30s"},
	}
}

// proxyArgs are the flags beside the configuration file; kube-proxy takes few.
func proxyArgs(extra map[string]string) []string {
	out := []string{"--config=/etc/kube-proxy/config.yaml", "--hostname-override=$(NODE_NAME)"}
	for _, k := range slices.Sorted(maps.Keys(extra)) {
		if name := strings.TrimLeft(k, "-"); name != "config" && name != "hostname-override" {
			out = append(out, "--"+name+"="+extra[k])
		}
	}
	return out
}

func proxy(c k8s.BootstrapManifestsConfigSpec) []m {
	const name = "kube-proxy"
	kubeconfig := text(m{
		"apiVersion": "v1", "kind": "Config", "current-context": "default",
		"clusters": l{m{"name": "default", "cluster": m{
			"server": c.String, "certificate-authority": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
		}}},
		"users":    l{m{"name": "default", "user": m{"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"}}},
		"contexts": l{m{"name": "default", "context": m{"cluster": "default", "user": "default", "namespace": "default"}}},
	})
	data := m{"config.yaml": text(c.ProxyConfig.Values), "kubeconfig": kubeconfig}
	return []m{
		serviceAccount(name),
		clusterRoleBinding("system-"+name, "system:node-proxier", serviceAccountSubject(name)),
		{"apiVersion": "v1", "kind": "ConfigMap", "metadata": m{"name": name, "namespace": system}, "data": data},
		daemonSet(name, m{"talos.dev/config-hash": checksum(data)}, m{
			"serviceAccountName": name,
			"hostNetwork":        true,
			"priorityClassName":  "system-node-critical",
			"tolerations":        everywhere(),
			"containers": l{m{
				"name": name, "image": c.ProxyImage, "imagePullPolicy": "IfNotPresent",
				"command":   append(l{"kube-proxy"}, anys(c.ProxyArgs)...),
				"env":       l{field("NODE_NAME", "spec.nodeName")},
				"resources": m{"requests": m{"cpu": "10m", "memory": "32Mi"}},
				// It writes sysctls of the node's network besides its nftables.
				"securityContext": m{"privileged": true},
				"readinessProbe":  m{"httpGet": m{"host": "127.0.0.1", "port": 10256, "path": "/healthz"}, "periodSeconds": 5, "timeoutSeconds": 5},
				"volumeMounts":    l{mount(name, "/etc/kube-proxy", true)},
			}},
			"volumes": l{configMapVolume(name)},
		}),
	}
}

// text is v as YAML, for a ConfigMap.
func text(v any) string {
	data, _ := yaml.Marshal(v) // plain values always encode
	return string(data)
}
