// Command extension is an API server that Kubernetes aggregates, as small as
// can be: it tells who asks, and believes that of the front proxy alone. The
// end-to-end tests run it in a pod.
//
// It owns nothing and keeps nothing; requests are served concurrently.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const group = "e2e.talos.dev"

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: extension FOLDER, with what ConfigMap extension-apiserver-authentication holds")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(dir string) error {
	authorities, err := os.ReadFile(filepath.Join(dir, "requestheader-client-ca-file"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return fmt.Errorf("no certificates in %q", authorities)
	}
	names, err := os.ReadFile(filepath.Join(dir, "requestheader-allowed-names"))
	if err != nil {
		return err
	}
	var allowed []string
	if err := json.Unmarshal(names, &allowed); err != nil {
		return fmt.Errorf("decode allowed names: %w", err)
	}
	own, err := certificate()
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr: ":8443", Handler: frontProxyOnly(allowed, api()), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
	}
	return server.ListenAndServeTLS("", "")
}

func frontProxyOnly(allowed []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := r.TLS.PeerCertificates[0].Subject.CommonName; !slices.Contains(allowed, name) {
			http.Error(w, name+" is not the front proxy", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func api() http.Handler {
	mux := http.NewServeMux()
	reply := func(path string, body func(*http.Request) any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(body(r)) // who asked went away
		})
	}
	version := map[string]string{"groupVersion": group + "/v1", "version": "v1"}
	reply("/apis/"+group, func(*http.Request) any {
		return map[string]any{"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": []any{version}, "preferredVersion": version}
	})
	reply("/apis/"+group+"/v1", func(*http.Request) any {
		return map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group + "/v1", "resources": []any{
			map[string]any{"name": "callers", "singularName": "caller", "kind": "Caller", "namespaced": false, "verbs": []string{"list"}},
		}}
	})
	reply("/apis/"+group+"/v1/callers", func(r *http.Request) any {
		return map[string]any{"kind": "CallerList", "apiVersion": group + "/v1", "metadata": map[string]any{}, "items": []any{map[string]any{
			"kind": "Caller", "apiVersion": group + "/v1", "metadata": map[string]any{"name": r.Header.Get("X-Remote-User")}, "groups": r.Header["X-Remote-Group"],
		}}}
	})
	return mux
}

// certificate is one that nobody vouches for: the test is of the client's.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"extension.kube-system.svc"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
