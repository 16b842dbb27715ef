package manifest

import (
	"encoding/json"

	"talos/internal/resources/k8s"
)

// flannel is the pod network: one daemon on each node that takes the node's
// share, keeps the routes to the other nodes' shares, and writes the node's CNI
// configuration.
func flannel(c k8s.BootstrapManifestsConfigSpec) []m {
	const name = "flannel"
	data := m{"net-conf.json": netConf(c)}
	args := []string{"--ip-masq", "--kube-subnet-mgr"}
	return []m{
		{
			"apiVersion": rbac, "kind": "ClusterRole", "metadata": m{"name": name},
			"rules": l{
				rule([]string{""}, []string{"pods"}, []string{"get"}),
				rule([]string{""}, []string{"nodes"}, []string{"get", "list", "watch"}),
				rule([]string{""}, []string{"nodes/status"}, []string{"patch"}),
			},
		},
		clusterRoleBinding(name, name, serviceAccountSubject(name)),
		serviceAccount(name),
		{"apiVersion": "v1", "kind": "ConfigMap", "metadata": m{"name": "kube-flannel-cfg", "namespace": system}, "data": data},
		daemonSet("kube-flannel", m{"talos.dev/config-hash": checksum(data)}, m{
			"serviceAccountName": name,
			"hostNetwork":        true,
			"priorityClassName":  "system-node-critical",
			"tolerations":        everywhere(),
			"containers": l{m{
				"name": "kube-flannel", "image": c.FlannelImage, "imagePullPolicy": "IfNotPresent",
				"command":   l{"/opt/bin/flanneld"},
				"args":      merged(args, c.FlannelExtraArgs),
				"env":       append(l{field("NODE_NAME", "spec.nodeName"), field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"), m{"name": "EVENT_QUEUE_DEPTH", "value": "5000"}}, apiEnv(c.FlannelKubeServiceHost, c.FlannelKubeServicePort)...),
				"resources": m{"requests": m{"cpu": "50m", "memory": "32Mi"}},
				"securityContext": m{
					"privileged":               false,
					"allowPrivilegeEscalation": false,
					"readOnlyRootFilesystem":   true,
					"capabilities":             m{"drop": l{"ALL"}, "add": l{"NET_ADMIN", "NET_RAW"}},
				},
				"volumeMounts": l{
					mount("run", "/run/flannel", false), mount("cni", "/etc/cni/net.d", false), mount("kube-flannel-cfg", "/etc/kube-flannel", true),
				},
			}},
			"volumes": l{
				hostPath("run", "/run/flannel", "DirectoryOrCreate"), hostPath("cni", "/etc/cni/net.d", "DirectoryOrCreate"), configMapVolume("kube-flannel-cfg"),
			},
		}),
	}
}

func netConf(c k8s.BootstrapManifestsConfigSpec) string {
	conf := m{"EnableNFTables": true, "Backend": m{"Type": c.FlannelBackendType, "Port": c.FlannelBackendPort}}
	v4 := false
	for _, cidr := range c.PodCIDRs {
		if isV6(cidr) {
			conf["IPv6Network"], conf["EnableIPv6"] = cidr, true
		} else {
			conf["Network"], v4 = cidr, true
		}
	}
	if !v4 {
		conf["EnableIPv4"] = false
	}
	data, _ := json.MarshalIndent(conf, "", "  ") // plain values always encode
	return string(data)
}
