// Package kubeconfig reads, merges and writes kubeconfig files without a
// Kubernetes client.
//
// It knows the parts that a merge needs and keeps everything else as it finds
// it. Values are not safe for concurrent use.
package kubeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"go.yaml.in/yaml/v3"

	"talos/client/talosconfig"
)

// Config is a kubeconfig file.
type Config struct {
	APIVersion     string         `yaml:"apiVersion"`
	Kind           string         `yaml:"kind"`
	Clusters       []Cluster      `yaml:"clusters"`
	Contexts       []Context      `yaml:"contexts"`
	CurrentContext string         `yaml:"current-context"`
	Users          []User         `yaml:"users"`
	Extra          map[string]any `yaml:",inline"`
}

// Cluster is a named cluster.
type Cluster struct {
	Name    string         `yaml:"name"`
	Cluster map[string]any `yaml:"cluster"`
}

// User is a named user.
type User struct {
	Name string         `yaml:"name"`
	User map[string]any `yaml:"user"`
}

// Context is a named pair of cluster and user.
type Context struct {
	Name    string      `yaml:"name"`
	Context ContextSpec `yaml:"context"`
}

// ContextSpec is what a Context names.
type ContextSpec struct {
	Cluster string         `yaml:"cluster"`
	User    string         `yaml:"user"`
	Extra   map[string]any `yaml:",inline"`
}

// Parse reads YAML or JSON.
func Parse(data []byte) (*Config, error) {
	c := &Config{}
	if err := yaml.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("decode kubeconfig: %w", err)
	}
	return c, nil
}

// Load reads a file; none is an empty Config.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Config{APIVersion: "v1", Kind: "Config"}, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.Kind == "" {
		c.APIVersion, c.Kind = "v1", "Config"
	}
	return c, nil
}

// Save writes the file with mode 0600, at once.
func (c *Config) Save(path string) error {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	return talosconfig.WritePrivate(path, out.Bytes())
}

// DefaultPath is the first file of $KUBECONFIG, else $HOME/.kube/config.
func DefaultPath(getenv func(string) string) (string, error) {
	for _, path := range filepath.SplitList(getenv("KUBECONFIG")) {
		if path != "" {
			return path, nil
		}
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".kube", "config"), nil
	}
	return "", errors.New("find kubeconfig: neither $KUBECONFIG nor $HOME is set; name a file")
}

// Merge adds the contexts of other with their clusters and users, and makes
// other's current context the current one. An entry of the same name stays if
// it is of the same cluster (its credentials are renewed) or if force says to
// overwrite; else the new context, cluster and user get the suffix -1, -2 ….
// The answer maps the names of other's contexts to those they got.
func (c *Config) Merge(other *Config, force bool) map[string]string {
	names := map[string]string{}
	for _, ctx := range other.Contexts {
		in := entry{context: ctx}
		if at := find(other.Clusters, ctx.Context.Cluster); at >= 0 {
			in.cluster = other.Clusters[at]
		}
		if at := find(other.Users, ctx.Context.User); at >= 0 {
			in.user = other.Users[at]
		}
		suffix := ""
		for i := 1; !force && !c.fits(in.named(suffix)); i++ {
			suffix = "-" + strconv.Itoa(i)
		}
		c.put(in.named(suffix))
		names[ctx.Name] = ctx.Name + suffix
	}
	if name, ok := names[other.CurrentContext]; ok {
		c.CurrentContext = name
	}
	return names
}

// entry is a context with what it names.
type entry struct {
	context Context
	cluster Cluster
	user    User
}

func (e entry) named(suffix string) entry {
	e.context.Name += suffix
	if e.cluster.Name != "" {
		e.cluster.Name += suffix
		e.context.Context.Cluster = e.cluster.Name
	}
	if e.user.Name != "" {
		e.user.Name += suffix
		e.context.Context.User = e.user.Name
	}
	return e
}

// fits reports whether nothing of another cluster has the names of e.
func (c *Config) fits(e entry) bool {
	if at := find(c.Clusters, e.cluster.Name); at >= 0 {
		return sameCluster(c.Clusters[at], e.cluster) && c.pointsTo(e)
	}
	return find(c.Contexts, e.context.Name) < 0 && find(c.Users, e.user.Name) < 0
}

// pointsTo reports whether the context and user of e's names, if they exist,
// belong to e's cluster.
func (c *Config) pointsTo(e entry) bool {
	if at := find(c.Contexts, e.context.Name); at >= 0 {
		have := c.Contexts[at].Context
		return have.Cluster == e.cluster.Name && have.User == e.user.Name
	}
	return find(c.Users, e.user.Name) < 0
}

// sameCluster compares what identifies a cluster: its address and its CA.
func sameCluster(a, b Cluster) bool {
	for _, key := range []string{"server", "certificate-authority-data"} {
		if fmt.Sprint(a.Cluster[key]) != fmt.Sprint(b.Cluster[key]) {
			return false
		}
	}
	return true
}

func (c *Config) put(e entry) {
	c.Contexts = put(c.Contexts, e.context)
	if e.cluster.Name != "" {
		c.Clusters = put(c.Clusters, e.cluster)
	}
	if e.user.Name != "" {
		c.Users = put(c.Users, e.user)
	}
}

// Remove takes away the contexts that use the cluster at server with CA ca,
// with their clusters and users, and answers their names.
func (c *Config) Remove(like Cluster) []string {
	var removed []string
	for _, cluster := range c.Clusters {
		if !sameCluster(cluster, like) {
			continue
		}
		for _, ctx := range c.Contexts {
			if ctx.Context.Cluster != cluster.Name {
				continue
			}
			removed = append(removed, ctx.Name)
			c.Users = drop(c.Users, ctx.Context.User)
			if c.CurrentContext == ctx.Name {
				c.CurrentContext = ""
			}
		}
		c.Clusters = drop(c.Clusters, cluster.Name)
	}
	for _, name := range removed {
		c.Contexts = drop(c.Contexts, name)
	}
	return removed
}

type named interface{ name() string }

func (c Cluster) name() string { return c.Name }
func (u User) name() string    { return u.Name }
func (c Context) name() string { return c.Name }

func find[T named](list []T, name string) int {
	for i, item := range list {
		if item.name() == name {
			return i
		}
	}
	return -1
}

func put[T named](list []T, item T) []T {
	if at := find(list, item.name()); at >= 0 {
		list[at] = item
		return list
	}
	return append(list, item)
}

func drop[T named](list []T, name string) []T {
	var kept []T
	for _, item := range list {
		if item.name() != name {
			kept = append(kept, item)
		}
	}
	return kept
}
