package manifest

import (
	"cmp"
	"fmt"
	"net/url"

	"talos/internal/resources/k8s"
)

// coreDNS is the cluster's name server: two replicas, so that an upgrade of one
// node leaves one, where there are two nodes.
func coreDNS(c k8s.BootstrapManifestsConfigSpec) []m {
	const name = "coredns"
	labels := m{"k8s-app": "kube-dns"} // what everybody looks for
	data := m{"Corefile": corefile(c.ClusterDomain)}
	return []m{
		serviceAccount(name),
		{
			"apiVersion": rbac, "kind": "ClusterRole", "metadata": m{"name": "system:coredns"},
			"rules": l{
				rule([]string{""}, []string{"services", "namespaces"}, []string{"list", "watch"}),
				rule([]string{"discovery.k8s.io"}, []string{"endpointslices"}, []string{"list", "watch"}),
			},
		},
		clusterRoleBinding("system:coredns", "system:coredns", serviceAccountSubject(name)),
		{"apiVersion": "v1", "kind": "ConfigMap", "metadata": m{"name": name, "namespace": system}, "data": data},
		dnsService(c, labels),
		{
			"apiVersion": "apps/v1", "kind": "Deployment",
			"metadata": m{"name": name, "namespace": system, "labels": m{"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
			"spec": m{
				"replicas": 2,
				"strategy": m{"type": "RollingUpdate", "rollingUpdate": m{"maxUnavailable": 1, "maxSurge": 0}},
				"selector": m{"matchLabels": labels},
				"template": m{
					"metadata": m{"labels": labels, "annotations": dnsAnnotations(c, data)},
					"spec":     dnsPod(c, name),
				},
			},
		},
	}
}

// dnsAnnotations change with what pods read at their start only.
func dnsAnnotations(c k8s.BootstrapManifestsConfigSpec, data m) m {
	out := m{"talos.dev/config-hash": checksum(data)}
	if c.CoreDNSForwardsToHost {
		out["talos.dev/forwards-to"] = "host"
	}
	return out
}

func dnsPod(c k8s.BootstrapManifestsConfigSpec, name string) m {
	return m{
		"serviceAccountName": name,
		"priorityClassName":  "system-cluster-critical",
		"dnsPolicy":          "Default",
		"nodeSelector":       m{"kubernetes.io/os": "linux"},
		"tolerations": l{
			m{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
			m{"key": "CriticalAddonsOnly", "operator": "Exists"},
		},
		"affinity": m{"podAntiAffinity": m{"preferredDuringSchedulingIgnoredDuringExecution": l{m{
			"weight": 100,
			"podAffinityTerm": m{
				"topologyKey":   "kubernetes.io/hostname",
				"labelSelector": m{"matchLabels": m{"k8s-app": "kube-dns"}},
			},
		}}}},
		"securityContext": m{
			"runAsUser": 65532, "runAsGroup": 65532, "runAsNonRoot": true,
			"seccompProfile": m{"type": "RuntimeDefault"},
		},
		"containers": l{m{
			"name": name, "image": c.CoreDNSImage, "imagePullPolicy": "IfNotPresent",
			"args": l{"-conf", "/etc/coredns/Corefile"},
			"env":  endpointEnv(c),
			"ports": l{
				m{"name": "dns", "protocol": "UDP", "containerPort": 53},
				m{"name": "dns-tcp", "protocol": "TCP", "containerPort": 53},
				m{"name": "metrics", "protocol": "TCP", "containerPort": 9153},
			},
			"resources": m{"requests": m{"cpu": "50m", "memory": "32Mi"}, "limits": m{"memory": "170Mi"}},
			"securityContext": m{
				"allowPrivilegeEscalation": false,
				"readOnlyRootFilesystem":   true,
				"capabilities":             m{"drop": l{"ALL"}, "add": l{"NET_BIND_SERVICE"}},
			},
			"livenessProbe":  m{"httpGet": m{"port": 8080, "path": "/health"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 5, "initialDelaySeconds": 60},
			"readinessProbe": m{"httpGet": m{"port": 8181, "path": "/ready"}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 3},
			"volumeMounts":   l{mount(name, "/etc/coredns", true)},
		}},
		"volumes": l{configMapVolume(name)},
	}
}

func endpointEnv(c k8s.BootstrapManifestsConfigSpec) l {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" {
		return nil
	}
	return apiEnv(u.Hostname(), cmp.Or(u.Port(), "443"))
}

func corefile(domain string) string {
	return fmt.Sprintf(`.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes %s in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
        max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
`, domain)
}

func dnsService(c k8s.BootstrapManifestsConfigSpec, selector m) m {
	var ips l
	for _, ip := range []string{c.DNSServiceIP, c.DNSServiceIPv6} {
		if ip != "" {
			ips = append(ips, ip)
		}
	}
	spec := m{
		"selector":  selector,
		"clusterIP": ips[0], "clusterIPs": ips,
		"ports": l{
			m{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
			m{"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
			m{"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
		},
	}
	if len(ips) > 1 {
		spec["ipFamilyPolicy"] = "RequireDualStack"
	}
	return m{
		"apiVersion": "v1", "kind": "Service",
		"metadata": m{
			"name": "kube-dns", "namespace": system,
			"labels":      m{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
			"annotations": m{"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
		},
		"spec": spec,
	}
}
