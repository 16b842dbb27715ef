package cri

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"talos/config"
	"talos/internal/containers"
	"talos/internal/resources/cri"
	"talos/internal/resources/pem"
)

// wildcard is the mirror for every registry that has none of its own, and
// defaultDir the folder that containerd looks into for it.
const (
	wildcard   = "*"
	defaultDir = "_default"
)

// FromConfig translates machine.registries into the resource's form.
func FromConfig(r *config.Registries) cri.RegistryConfigSpec {
	spec := cri.RegistryConfigSpec{
		Mirrors: map[string]*cri.RegistryMirrorConfig{},
		Auths:   map[string]*cri.RegistryAuthConfig{},
		TLS:     map[string]*cri.RegistryTLSConfig{},
	}
	if r == nil {
		return spec
	}
	for host, m := range r.Mirrors {
		mirror := &cri.RegistryMirrorConfig{SkipFallback: config.Bool(m.SkipFallback, false)}
		for _, e := range m.Endpoints {
			mirror.Endpoints = append(mirror.Endpoints, cri.RegistryEndpointConfig{Endpoint: e, OverridePath: config.Bool(m.OverridePath, false)})
		}
		spec.Mirrors[host] = mirror
	}
	for host, c := range r.Config {
		if a := c.Auth; a != nil {
			spec.Auths[host] = &cri.RegistryAuthConfig{Username: a.Username, Password: a.Password, Auth: a.Auth, IdentityToken: a.IdentityToken}
		}
		if t := c.TLS; t != nil {
			tls := &cri.RegistryTLSConfig{CA: t.CA, InsecureSkipVerify: config.Bool(t.InsecureSkipVerify, false)}
			if id := t.ClientIdentity; id != nil {
				tls.ClientIdentity = &pem.CertificateAndKey{Crt: id.Crt, Key: id.Key}
			}
			spec.TLS[host] = tls
		}
	}
	return spec
}

// Files are the registry settings as files: path below containers.HostsDir →
// content. containerd reads them anew for each pull.
func Files(r cri.RegistryConfigSpec) map[string]string {
	files := map[string]string{}
	names := slices.Collect(maps.Keys(r.Mirrors))
	for name := range r.TLS {
		if !slices.Contains(names, name) && !isEndpoint(r, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		renderHost(files, r, name)
	}
	return files
}

// isEndpoint says that a host appears as a mirror only: nothing is pulled by
// its own name.
func isEndpoint(r cri.RegistryConfigSpec, host string) bool {
	for _, m := range r.Mirrors {
		if slices.ContainsFunc(m.Endpoints, func(e cri.RegistryEndpointConfig) bool { return hostOf(e.Endpoint) == host }) {
			return true
		}
	}
	return false
}

// renderHost writes the folder of one registry. Its mirrors come first, then,
// as the file's server, the registry itself, or the last mirror again if the
// registry itself must not be asked.
func renderHost(files map[string]string, r cri.RegistryConfigSpec, name string) {
	dir := name
	if name == wildcard {
		dir = defaultDir
	}
	mirror := r.Mirrors[name]
	if mirror == nil {
		mirror = r.Mirrors[wildcard]
	}
	if mirror == nil {
		mirror = &cri.RegistryMirrorConfig{}
	}
	endpoints := mirror.Endpoints
	var b strings.Builder
	switch {
	case mirror.SkipFallback && len(endpoints) > 0:
		last := endpoints[len(endpoints)-1]
		endpoints = endpoints[:len(endpoints)-1]
		fmt.Fprintf(&b, "server = %s\n", quote(last.Endpoint))
		renderEndpoint(&b, files, r, dir, hostOf(last.Endpoint), last.OverridePath, "")
	case name != wildcard:
		fmt.Fprintf(&b, "server = %s\n", quote(upstream(name)))
		renderEndpoint(&b, files, r, dir, name, false, "")
	}
	for _, e := range endpoints {
		fmt.Fprintf(&b, "\n[host.%s]\n", quote(e.Endpoint))
		renderEndpoint(&b, files, r, dir, hostOf(e.Endpoint), e.OverridePath, "  ")
	}
	files[dir+"/hosts.toml"] = b.String()
}

// renderEndpoint writes how a host is spoken to, with its certificates as
// files in the same folder.
func renderEndpoint(b *strings.Builder, files map[string]string, r cri.RegistryConfigSpec, dir, host string, overridePath bool, indent string) {
	fmt.Fprintf(b, "%scapabilities = [\"pull\", \"resolve\"]\n", indent)
	if overridePath {
		fmt.Fprintf(b, "%soverride_path = true\n", indent)
	}
	tls := r.TLS[host]
	if tls == nil {
		return
	}
	file := func(kind string, content []byte) string {
		path := dir + "/" + host + "-" + kind
		files[path] = string(content)
		return quote(containers.HostsDir + "/" + path)
	}
	if len(tls.CA) > 0 {
		fmt.Fprintf(b, "%sca = %s\n", indent, file("ca.pem", tls.CA))
	}
	if id := tls.ClientIdentity; id != nil {
		fmt.Fprintf(b, "%sclient = [[%s, %s]]\n", indent, file("client.pem", id.Crt), file("client-key.pem", id.Key))
	}
	if tls.InsecureSkipVerify {
		fmt.Fprintf(b, "%sskip_verify = true\n", indent)
	}
}

// upstream is where a registry itself is reached.
func upstream(name string) string {
	if name == "docker.io" {
		return "https://registry-1.docker.io"
	}
	return "https://" + name
}

func hostOf(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		return u.Host
	}
	return strings.TrimPrefix(endpoint, "//")
}

// credentialsOf gives each registry's credentials as our own pulls take them.
func credentialsOf(r cri.RegistryConfigSpec) map[string]containers.Credentials {
	all := map[string]containers.Credentials{}
	for host, a := range r.Auths {
		c := containers.Credentials{Username: a.Username, Secret: a.Password}
		if a.IdentityToken != "" {
			c = containers.Credentials{Secret: a.IdentityToken}
		}
		if a.Auth != "" { // base64 of user:password, as in Docker's own files
			if raw, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
				c.Username, c.Secret, _ = strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
			}
		}
		all[host] = c
	}
	return all
}

func authsOf(r cri.RegistryConfigSpec) map[string]Auth {
	all := map[string]Auth{}
	for host, a := range r.Auths {
		all[host] = Auth{Username: a.Username, Password: a.Password, Auth: a.Auth, IdentityToken: a.IdentityToken}
	}
	return all
}
