package controlplane

import (
	"maps"
	"slices"
	"strconv"

	"talos/internal/layout"
	"talos/internal/resources/k8s"
)

// Annotations and labels of static pods.
const (
	HashAnnotation = "talos.dev/config-hash" // another value restarts the pod
	StaticLabel    = "talos.dev/static-pod"  // on every pod that the node runs by itself
	priority       = 2_000_001_000           // of system-node-critical
	priorityClass  = "system-node-critical"
	systemCerts    = "/etc/ssl/certs"
)

type m = map[string]any

// component is a control plane program as a pod.
type component struct {
	name      string
	uid       int
	image     string
	args      []string
	env       map[string]string
	port      int
	hash      string
	tcpProbes bool // nobody may ask without credentials
	startup   bool
	requests  map[string]string
	resources k8s.Resources
	writable  map[string]string // volume name to folder
	volumes   []k8s.ExtraVolume
}

func apiServerPod(s k8s.APIServerConfigSpec, hash string) m {
	return component{
		name: APIServer, uid: layout.APIServerUID, image: s.Image, args: s.Args, env: s.EnvironmentVariables,
		port: s.LocalPort, hash: hash, startup: s.StartupProbesEnabled,
		tcpProbes: !s.UseAuthenticationConfig && !has(s.ExtraArgs, "authentication-config"),
		requests:  map[string]string{"cpu": "100m", "memory": "256Mi"}, resources: s.Resources,
		writable: map[string]string{"audit": AuditDir}, volumes: s.ExtraVolumes,
	}.pod()
}

func managerPod(s k8s.ControllerManagerConfigSpec, hash string) m {
	return component{
		name: Manager, uid: layout.ManagerUID, image: s.Image, args: s.Args, env: s.EnvironmentVariables,
		port: 10257, hash: hash, startup: true,
		requests: map[string]string{"cpu": "50m", "memory": "64Mi"}, resources: s.Resources, volumes: s.ExtraVolumes,
	}.pod()
}

func schedulerPod(s k8s.SchedulerConfigSpec, hash string) m {
	return component{
		name: Scheduler, uid: layout.SchedulerUID, image: s.Image, args: s.Args, env: s.EnvironmentVariables,
		port: 10259, hash: hash, startup: true,
		requests: map[string]string{"cpu": "10m", "memory": "32Mi"}, resources: s.Resources, volumes: s.ExtraVolumes,
	}.pod()
}

func (c component) pod() m {
	volumes, mounts := c.mounts()
	live, ready := "/livez", "/readyz"
	if c.name == Manager { // which has but this one
		live, ready = "/healthz", "/healthz"
	}
	container := m{
		"name":            c.name,
		"image":           c.image,
		"imagePullPolicy": "IfNotPresent",
		"command":         append([]any{c.name}, anys(c.args)...),
		"env":             c.environment(),
		"resources":       c.limits(),
		"volumeMounts":    mounts,
		"livenessProbe":   c.probe(live, m{"periodSeconds": 10, "timeoutSeconds": 15, "failureThreshold": 8}),
		"readinessProbe":  c.probe(ready, m{"periodSeconds": 1, "timeoutSeconds": 15, "failureThreshold": 3}),
		"securityContext": m{
			"allowPrivilegeEscalation": false,
			"readOnlyRootFilesystem":   true,
			"capabilities":             m{"drop": []any{"ALL"}},
		},
	}
	if c.startup {
		// Twenty minutes at least: what starts slowly gains nothing by starting
		// again, and what can't start ends by itself.
		container["startupProbe"] = c.probe(live, m{"periodSeconds": 1, "timeoutSeconds": 15, "failureThreshold": 1200})
	}
	return m{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata": m{
			"name":        c.name,
			"namespace":   "kube-system",
			"annotations": m{HashAnnotation: c.hash},
			"labels": m{
				"component": c.name, "k8s-app": c.name, "tier": "control-plane", StaticLabel: "true",
			},
		},
		"spec": m{
			"hostNetwork":                   true,
			"priority":                      priority,
			"priorityClassName":             priorityClass,
			"automountServiceAccountToken":  false,
			"terminationGracePeriodSeconds": 30,
			"securityContext": m{
				"runAsUser": c.uid, "runAsGroup": c.uid, "runAsNonRoot": true,
				"seccompProfile": m{"type": "RuntimeDefault"},
			},
			"containers": []any{container},
			"volumes":    volumes,
		},
	}
}

// mounts shows the component its secrets, the CA certificates of the world,
// what it writes, and what the user adds.
func (c component) mounts() (volumes, mounts []any) {
	add := func(name, host, at string, readonly bool) {
		volumes = append(volumes, m{"name": name, "hostPath": m{"path": host}})
		mounts = append(mounts, m{"name": name, "mountPath": at, "readOnly": readonly})
	}
	add("secrets", dir(c.name), dir(c.name), true)
	add("system-certs", systemCerts, systemCerts, true)
	for _, name := range slices.Sorted(maps.Keys(c.writable)) {
		add(name, c.writable[name], c.writable[name], false)
	}
	for _, v := range c.volumes {
		add(v.Name, v.HostPath, v.MountPath, v.Readonly)
	}
	return volumes, mounts
}

func (c component) environment() []any {
	out := []any{}
	for _, name := range slices.Sorted(maps.Keys(c.env)) {
		out = append(out, m{"name": name, "value": c.env[name]})
	}
	return out
}

func (c component) limits() m {
	requests := c.requests
	if len(c.resources.Requests) > 0 {
		requests = c.resources.Requests
	}
	out := m{"requests": strings2any(requests)}
	if len(c.resources.Limits) > 0 {
		out["limits"] = strings2any(c.resources.Limits)
	}
	return out
}

func (c component) probe(path string, timing m) m {
	out := maps.Clone(timing)
	if c.tcpProbes {
		out["tcpSocket"] = m{"host": "127.0.0.1", "port": c.port}
		return out
	}
	out["httpGet"] = m{"scheme": "HTTPS", "host": "127.0.0.1", "port": c.port, "path": path}
	return out
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, v := range in {
		out[i] = v
	}
	return out
}

func strings2any(in map[string]string) m {
	out := m{}
	for k, v := range in {
		out[k] = v
	}
	return out
}

// userPod is a pod of machine.pods as a static pod: with a namespace and the
// label that its status is found by.
func userPod(index int, in m) m {
	out := maps.Clone(in)
	meta := m{}
	if have, ok := in["metadata"].(m); ok {
		maps.Copy(meta, have)
	}
	if meta["namespace"] == nil {
		meta["namespace"] = "default"
	}
	if meta["name"] == nil {
		meta["name"] = "pod-" + strconv.Itoa(index)
	}
	labels := m{}
	if have, ok := meta["labels"].(m); ok {
		maps.Copy(labels, have)
	}
	labels[StaticLabel] = "true"
	meta["labels"] = labels
	out["metadata"] = meta
	return out
}
