// Package talosconfig is the user's client configuration: named contexts, each
// with the endpoints, default nodes and certificates of one cluster, in one
// YAML file.
//
// It owns the file's format, where it is looked for and how two files merge.
// It makes no connections. Values are plain data without locks: share them
// between goroutines for reading only.
package talosconfig

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Config is the whole file.
type Config struct {
	Context  string              `yaml:"context"`
	Contexts map[string]*Context `yaml:"contexts"`
}

// Context is the access to one cluster. CA, Crt and Key are PEM in base64.
type Context struct {
	Endpoints []string `yaml:"endpoints"`
	Nodes     []string `yaml:"nodes,omitempty"`
	CA        string   `yaml:"ca,omitempty"`
	Crt       string   `yaml:"crt,omitempty"`
	Key       string   `yaml:"key,omitempty"`

	// Extra keeps keys that other clients put there.
	Extra map[string]any `yaml:",inline"`
}

// ErrNoContext says that a context does not exist.
var ErrNoContext = errors.New("no such context")

// Parse reads the YAML form.
func Parse(data []byte) (*Config, error) {
	c := &Config{}
	if err := yaml.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("decode talosconfig: %w", err)
	}
	if c.Contexts == nil {
		c.Contexts = map[string]*Context{}
	}
	for name, ctx := range c.Contexts {
		if ctx == nil {
			c.Contexts[name] = &Context{}
		}
	}
	return c, nil
}

// Load reads a file. A file that does not exist is an error; see LoadOrEmpty.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// LoadOrEmpty reads a file; where there is none it answers an empty Config.
func LoadOrEmpty(path string) (*Config, error) {
	c, err := Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Config{Contexts: map[string]*Context{}}, nil
	}
	return c, err
}

// Bytes is the YAML form.
func (c *Config) Bytes() ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(4)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encode talosconfig: %w", err)
	}
	return out.Bytes(), nil
}

// Save writes the file with mode 0600 in a folder made with mode 0700. The old
// file stays whole until the new one is on disk.
func (c *Config) Save(path string) error {
	data, err := c.Bytes()
	if err != nil {
		return err
	}
	return WritePrivate(path, data)
}

// Select answers the named context, or the current one for an empty name.
func (c *Config) Select(name string) (*Context, error) {
	if name == "" {
		name = c.Context
	}
	if name == "" {
		return nil, fmt.Errorf("%w: none is selected", ErrNoContext)
	}
	ctx, ok := c.Contexts[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q (there are: %v)", ErrNoContext, name, c.Names())
	}
	return ctx, nil
}

// Names lists the contexts in order.
func (c *Config) Names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }

// Rename says under which name Merge stored a context.
type Rename struct{ From, To string }

// Merge adds the contexts of other. One whose name is taken by a different
// context is stored as name-1, name-2 …; one that is there already, equal, is
// left alone. The current context becomes the one that other selects. The
// answer tells the name of each context of other in c.
func (c *Config) Merge(other *Config) []Rename {
	if c.Contexts == nil {
		c.Contexts = map[string]*Context{}
	}
	var done []Rename
	for _, from := range other.Names() {
		to := c.freeName(from, other.Contexts[from])
		c.Contexts[to] = other.Contexts[from]
		if from == other.Context {
			c.Context = to
		}
		done = append(done, Rename{From: from, To: to})
	}
	return done
}

func (c *Config) freeName(name string, ctx *Context) string {
	try := name
	for i := 1; ; i++ {
		have, taken := c.Contexts[try]
		if !taken || reflect.DeepEqual(have, ctx) {
			return try
		}
		try = name + "-" + strconv.Itoa(i)
	}
}

// Certificate decodes the client's certificate and key; nil where there is none.
func (c *Context) Certificate() (*tls.Certificate, error) {
	if c.Crt == "" && c.Key == "" {
		return nil, nil
	}
	crt, err := base64.StdEncoding.DecodeString(c.Crt)
	if err != nil {
		return nil, fmt.Errorf("crt: not base64: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(c.Key)
	if err != nil {
		return nil, fmt.Errorf("key: not base64: %w", err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return nil, fmt.Errorf("crt and key: %w", err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("crt: %w", err)
		}
	}
	return &pair, nil
}

// Authorities decodes the CA certificates that servers are checked with.
func (c *Context) Authorities() (*x509.CertPool, error) {
	pem, err := base64.StdEncoding.DecodeString(c.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: not base64: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca: holds no certificate")
	}
	return pool, nil
}

// WritePrivate replaces a file at once, with mode 0600, and makes its folder
// with mode 0700. A symbolic link stays a link.
func WritePrivate(path string, data []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}

// Encode is the form in which a Context holds PEM.
func Encode(pem []byte) string { return base64.StdEncoding.EncodeToString(pem) }
