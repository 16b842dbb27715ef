//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// lines collects what arrives from a node.
type lines struct {
	mu  sync.Mutex // guards all
	all []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

// with returns a line that has all the parts, or says that there is none.
func (l *lines) with(parts ...string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for _, line := range l.all {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		return line, nil
	}
	return "", fmt.Errorf("none of %d lines has %q", len(l.all), parts)
}

// atLeast wants n lines with the part.
func (l *lines) atLeast(n int, part string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := 0
	for _, line := range l.all {
		if strings.Contains(line, part) {
			have++
		}
	}
	if have < n {
		return fmt.Errorf("%d lines with %q, want %d", have, part, n)
	}
	return nil
}

// listenLogs receives log lines over UDP and TCP, on the returned ports.
func listenLogs(t *testing.T) (udp, tcp *lines, udpPort, tcpPort int) {
	t.Helper()
	udp, tcp = &lines{}, &lines{}
	packets, err := net.ListenPacket("udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close(); streams.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, _, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.add(string(buf[:n]))
		}
	}()
	go func() {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for scanner := bufio.NewScanner(conn); scanner.Scan(); {
					tcp.add(scanner.Text())
				}
			}()
		}
	}()
	return udp, tcp, packets.LocalAddr().(*net.UDPAddr).Port, streams.Addr().(*net.TCPAddr).Port
}

// serveFiles is a web server that nodes reach; it returns its port.
func serveFiles(t *testing.T, handler http.Handler) int {
	t.Helper()
	listener, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(listener) // Close ends it
	t.Cleanup(func() { server.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

// text serves the same to everybody.
func text(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
}

// registry serves the images that the build made, under any name, to whoever
// knows user and password.
func registry(user, password string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/", func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="e2e"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		match := regexp.MustCompile(`^/v2/.+/(manifests|blobs)/([^/]+)$`).FindStringSubmatch(r.URL.Path)
		if match == nil {
			return // the probe of the version
		}
		digest := match[2]
		if !strings.Contains(digest, ":") {
			digest = layoutDigest(agnhost)
		}
		data, err := os.ReadFile(filepath.Join(imagesDir(), "blobs", strings.Replace(digest, ":", "/", 1)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Content-Type", mediaType(data))
		w.Write(data)
	})
	return mux
}

func mediaType(data []byte) string {
	var document struct{ MediaType string }
	if json.Unmarshal(data, &document) == nil && document.MediaType != "" {
		return document.MediaType
	}
	return "application/octet-stream"
}

// gateway is the address of the host on the cluster's network.
func gateway(t *testing.T, e env) string {
	t.Helper()
	out := e.must(t, "", "talosctl", "cluster", "show", "--name", e.name)
	match := regexp.MustCompile(`GATEWAY\s+(\S+)`).FindStringSubmatch(out)
	if match == nil {
		t.Fatalf("cluster show prints no gateway:\n%s", out)
	}
	return match[1]
}

// asList makes one YAML document, which JSON is, of a Manifest resource.
func asList(t *testing.T, resource string) string {
	t.Helper()
	var manifest struct {
		Spec struct {
			Items []struct{ Values map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(resource), &manifest); err != nil {
		t.Fatalf("manifest: %v", err)
	}
	var documents []string
	for _, item := range manifest.Spec.Items {
		data, err := json.Marshal(item.Values)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, string(data))
	}
	return strings.Join(documents, "\n---\n")
}
