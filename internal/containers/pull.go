package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
)

// AuthFile holds the user names and passwords of registries, beside their
// hosts.toml files, which have no place for them.
var AuthFile = filepath.Join(filepath.Dir(HostsDir), "auth.json")

// Credentials are a user's name and secret at a registry. An empty name means
// that the secret is an identity token.
type Credentials struct {
	Username string `json:"username"`
	Secret   string `json:"secret"`
}

// Pull fetches an image and unpacks it, by way of the configured mirrors.
func Pull(ctx context.Context, conn *client.Client, ref string) (client.Image, error) {
	snapshotter, err := Snapshotter(ctx, conn)
	if err != nil {
		return nil, err
	}
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: config.ConfigureHosts(ctx, config.HostOptions{
			HostDir:     config.HostDirFromRoot(HostsDir),
			Credentials: credentials,
		}),
	})
	image, err := conn.Pull(ctx, ref, client.WithResolver(resolver), client.WithPullUnpack, client.WithPullSnapshotter(snapshotter))
	if err != nil {
		return nil, fmt.Errorf("pull image %s: %w", ref, err)
	}
	return image, nil
}

// Pull fetches an image for a namespace of an instance.
func (c *Client) Pull(ctx context.Context, i Instance, namespace, ref string) (client.Image, error) {
	conn, err := c.Connection(i)
	if err != nil {
		return nil, err
	}
	return Pull(Namespaced(ctx, namespace), conn, ref)
}

// Images lists the images of a namespace.
func (c *Client) Images(ctx context.Context, i Instance, namespace string) ([]client.Image, error) {
	conn, err := c.Connection(i)
	if err != nil {
		return nil, err
	}
	images, err := conn.ListImages(Namespaced(ctx, namespace))
	if err != nil {
		return nil, fmt.Errorf("list images of %s in %s: %w", namespace, i, err)
	}
	return images, nil
}

func credentials(host string) (user, secret string, err error) {
	text, err := os.ReadFile(AuthFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	var all map[string]Credentials
	if err := json.Unmarshal(text, &all); err != nil {
		return "", "", fmt.Errorf("%s: %w", AuthFile, err)
	}
	return all[host].Username, all[host].Secret, nil
}

// Snapshotter names the snapshotter that an instance has: its configuration
// leaves it one.
func Snapshotter(ctx context.Context, conn *client.Client) (string, error) {
	found, err := conn.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return "", fmt.Errorf("ask for snapshotters: %w", err)
	}
	var names []string
	for _, p := range found.Plugins {
		if p.InitErr == nil {
			names = append(names, p.ID)
		}
	}
	for _, name := range []string{"overlayfs", "native"} {
		if slices.Contains(names, name) {
			return name, nil
		}
	}
	return "", errors.New("containerd has no snapshotter")
}
