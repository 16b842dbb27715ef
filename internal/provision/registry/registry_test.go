package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	ociLayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serve writes a layout with an image per name and serves it over TLS.
func serve(t *testing.T, names ...string) (srv *httptest.Server, images map[string]v1.Image) {
	t.Helper()
	dir := t.TempDir()
	images = map[string]v1.Image{}
	index, err := random.Index(1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	path, err := ociLayout.Write(dir, index)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		img, err := random.Image(100_000, 3)
		if err != nil {
			t.Fatal(err)
		}
		if err := path.AppendImage(img, ociLayout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": n})); err != nil {
			t.Fatal(err)
		}
		images[n] = img
	}
	srv = httptest.NewTLSServer(New(slog.New(slog.DiscardHandler), dir))
	t.Cleanup(srv.Close)
	return srv, images
}

// fetch pulls an image as containerd on a node does, through a mirror for
// every host, and returns its digest. Contents are verified.
func fetch(ctx context.Context, srv *httptest.Server, ref string) (string, error) {
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: func(string) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{{
			Client:       srv.Client(),
			Host:         strings.TrimPrefix(srv.URL, "https://"),
			Scheme:       "https",
			Path:         "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}}, nil
	}})
	name, desc, err := resolver.Resolve(ctx, ref)
	if err != nil {
		return "", err
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return "", err
	}
	read := func(d ocispec.Descriptor) ([]byte, error) {
		rc, err := fetcher.Fetch(ctx, d)
		if err != nil {
			return nil, err
		}
		defer rc.Close()
		data, err := io.ReadAll(rc)
		if err == nil && digest.FromBytes(data) != d.Digest {
			err = fmt.Errorf("content of %s has digest %s", d.Digest, digest.FromBytes(data))
		}
		return data, err
	}
	data, err := read(desc)
	if err != nil {
		return "", err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return "", err
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		if _, err := read(d); err != nil {
			return "", err
		}
	}
	return desc.Digest.String(), nil
}

func TestPull(t *testing.T) {
	const a, b, c = "registry.k8s.io/etcd:v3", "ghcr.io/etcd:v3", "registry.k8s.io/coredns/coredns:v1"
	srv, images := serve(t, a, b, c)
	for _, ref := range []string{a, b, c} {
		want, _ := images[ref].Digest()
		if got, err := fetch(t.Context(), srv, ref); err != nil || got != want.String() {
			t.Errorf("fetch(%s) = %s, %v, want %s", ref, got, err, want)
		}
	}
	for _, ref := range []string{"docker.io/etcd:v3", "registry.k8s.io/etcd:v4"} {
		if got, err := fetch(t.Context(), srv, ref); !errdefs.IsNotFound(err) {
			t.Errorf("fetch(%s) = %s, %v, want not found", ref, got, err)
		}
	}
}

func TestLookup(t *testing.T) {
	const a, b, c = "registry.k8s.io/etcd:v3", "ghcr.io/etcd:v3", "registry.k8s.io/coredns/coredns:v1"
	srv, images := serve(t, a, b, c)
	for _, tc := range []struct{ path, want string }{
		{"etcd/manifests/v3?ns=ghcr.io", b},
		{"registry.k8s.io/etcd/manifests/v3", a},
		{"coredns/coredns/manifests/v1", c},
		{"etcd/manifests/v3", ""}, // two hosts have it
		{"etcd/manifests/v3?ns=docker.io", ""},
	} {
		resp, err := srv.Client().Get(srv.URL + "/v2/" + tc.path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := ""
		if tc.want != "" {
			d, _ := images[tc.want].Digest()
			want = d.String()
		}
		if got := resp.Header.Get("Docker-Content-Digest"); got != want {
			t.Errorf("GET %s = %q, want %q", tc.path, got, want)
		}
	}
}

func TestRequests(t *testing.T) {
	srv, images := serve(t, "registry.k8s.io/etcd:v3")
	layers, _ := images["registry.k8s.io/etcd:v3"].Layers()
	hash, _ := layers[0].Digest()
	size, _ := layers[0].Size()
	blob := "/v2/etcd/blobs/" + hash.String()
	for _, tc := range []struct {
		method, path, byteRange string
		status                  int
		length                  int64
	}{
		{"GET", "/v2/", "", 200, 2},
		{"HEAD", blob, "", 200, size},
		{"GET", blob, "bytes=10-19", 206, 10},
		{"GET", "/v2/etcd/blobs/sha256:" + strings.Repeat("0", 64), "", 404, -1},
		{"GET", "/v2/etcd/blobs/sha256:../../index.json", "", 400, -1},
		{"GET", "/v2/etcd/manifests/..%2f..%2findex.json", "", 404, -1},
		{"HEAD", "/v2/etcd/manifests/v3", "", 200, -1},
		{"POST", "/v2/etcd/blobs/uploads/", "", 405, -1},
		{"GET", "/elsewhere", "", 404, -1},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, srv.URL+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.byteRange != "" {
			req.Header.Set("Range", tc.byteRange)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.status || tc.length >= 0 && resp.ContentLength != tc.length {
			t.Errorf("%s %s = %d with %d bytes, want %d with %d", tc.method, tc.path, resp.StatusCode, resp.ContentLength, tc.status, tc.length)
		}
	}
}
