package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cosi-project/runtime/pkg/controller"
	"k8s.io/apimachinery/pkg/util/yaml"

	"talos/internal/reconcile"
	"talos/internal/resources/k8s"
)

const (
	fetchTime = 30 * time.Second
	fetchSize = 16 << 20
)

// fetcher turns the manifests that the configuration adds into objects. What
// has a URL is fetched in a task, until each was there once.
type fetcher struct {
	task reconcile.Task

	mu   sync.Mutex        // guards have
	have map[string][]byte // by URL and headers
}

// manifests are those that are at hand; the controller is woken when more are.
func (f *fetcher) manifests(ctx context.Context, r controller.Runtime, log *slog.Logger, list []k8s.ExtraManifest) []Manifest {
	var out []Manifest
	var missing []k8s.ExtraManifest
	for _, e := range list {
		text := []byte(e.InlineManifest)
		if e.URL != "" {
			f.mu.Lock()
			data, ok := f.have[source(e)]
			f.mu.Unlock()
			if !ok {
				missing = append(missing, e)
				continue
			}
			text = data
		}
		objects, err := Parse(text)
		if err != nil {
			log.Error("manifest left out", "manifest", e.Name, "err", err)
			continue
		}
		out = append(out, Manifest{Name: e.Name, Objects: objects})
	}
	if len(missing) == 0 {
		f.task.Stop()
		return out
	}
	f.task.Ensure(ctx, log, checksum(list), func(ctx context.Context) error {
		err := f.fetchAll(ctx, missing)
		r.QueueReconcile()
		return err
	})
	return out
}

func source(e k8s.ExtraManifest) string { return e.URL + " " + checksum(e.ExtraHeaders) }

func (f *fetcher) fetchAll(ctx context.Context, list []k8s.ExtraManifest) error {
	var errs []error
	for _, e := range list {
		f.mu.Lock()
		_, ok := f.have[source(e)]
		f.mu.Unlock()
		if ok {
			continue
		}
		data, err := fetch(ctx, e.URL, e.ExtraHeaders)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.mu.Lock()
		if f.have == nil {
			f.have = map[string][]byte{}
		}
		f.have[source(e)] = data
		f.mu.Unlock()
	}
	return errors.Join(errs...)
}

func fetch(ctx context.Context, url string, headers map[string]string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetch manifest: %w", err)
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch manifest: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch manifest %s: %s", url, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, fetchSize+1))
	if err != nil {
		return nil, fmt.Errorf("fetch manifest %s: %w", url, err)
	}
	if len(data) > fetchSize {
		return nil, fmt.Errorf("fetch manifest %s: larger than %d bytes", url, fetchSize)
	}
	return data, nil
}

// Parse reads the objects of a YAML stream; lists are taken apart.
func Parse(data []byte) ([]map[string]any, error) {
	var out []map[string]any
	docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for n := 1; ; n++ {
		var o map[string]any
		err := docs.Decode(&o)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if len(o) == 0 {
			continue
		}
		parts := []any{o}
		if inner, ok := o["items"].([]any); ok && o["metadata"] == nil || ok && o["kind"] == "List" {
			parts = inner
		}
		for _, p := range parts {
			object, _ := p.(map[string]any)
			if err := check(object); err != nil {
				return nil, fmt.Errorf("document %d: %w", n, err)
			}
			out = append(out, object)
		}
	}
}

func check(o map[string]any) error {
	meta, _ := o["metadata"].(map[string]any)
	for key, v := range map[string]any{"apiVersion": o["apiVersion"], "kind": o["kind"], "metadata.name": meta["name"]} {
		if s, ok := v.(string); !ok || s == "" {
			return fmt.Errorf("object has no %s", key)
		}
	}
	return nil
}
