package platform

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"talos/config"
	"talos/internal/cmdline"
	"talos/internal/fetch"
	"talos/internal/resources/runtime"
)

// bench is a machine that can be told anything.
type bench struct {
	Options
	dir string
}

func newBench(t *testing.T, arguments string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	b.Options = Options{
		Cmdline: cmdline.Parse(arguments), Dir: filepath.Join(b.dir, "platform"), DMI: filepath.Join(b.dir, "dmi"),
		Volumes: &Volumes{Devices: func() ([]string, error) { return nil, nil }},
		Fetch:   fetch.New(nil, time.Now).Get,
		Machine: func(context.Context) (Machine, error) {
			return Machine{HardwareAddr: "02:00:00:00:00:01", Hostname: "one"}, nil
		},
	}
	b.write(t, "dmi/product_uuid", "4C4C4544-0042-3510-8051-B8C04F4A4E32\n")
	b.write(t, "dmi/product_serial", "S/N 1+1\n")
	return b
}

func (b *bench) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// volume gives the machine a volume: the image says what it is, the folder what
// is on it.
func (b *bench) volume(t *testing.T, name string, files map[string]string) {
	t.Helper()
	device := filepath.Join(b.dir, name+".img")
	if err := os.WriteFile(device, image(t, name), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, text := range files {
		b.write(t, name+"/"+file, text)
	}
	before, mounted := b.Volumes.Devices, 0
	b.Volumes = &Volumes{
		Devices: func() ([]string, error) {
			list, err := before()
			return append(list, filepath.Join(b.dir, "none"), device), err
		},
		Mount: func(d, kind string) (string, func() error, error) {
			base := strings.TrimSuffix(filepath.Base(d), ".img")
			mounted++
			return filepath.Join(b.dir, base), func() error { mounted--; return nil }, nil
		},
	}
	t.Cleanup(func() {
		if mounted != 0 {
			t.Errorf("%d volumes are still mounted", mounted)
		}
	})
}

func (b *bench) platform(t *testing.T, name string) *Platform {
	t.Helper()
	p, err := New(name, b.Options)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// answers asks for the configuration and compares the answer.
func answers(t *testing.T, p *Platform, document, from, problem string) {
	t.Helper()
	got, where, err := p.Configuration(t.Context())
	if problem != "" {
		if err == nil || !strings.Contains(err.Error(), problem) || got != nil || !utf8.ValidString(err.Error()) {
			t.Errorf("Configuration = %q, %v, want an error with %q", got, err, problem)
		}
		return
	}
	if err != nil || string(got) != document || !strings.Contains(where, from) {
		t.Errorf("Configuration = %q, %q, %v, want %q from %q", got, where, err, document, from)
	}
}

func permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

func TestNew(t *testing.T) {
	for name, want := range map[string]string{"": "metal", "metal": "metal", "nocloud": "nocloud", "container": "container"} {
		if p := newBench(t, "").platform(t, name); p.Name() != want {
			t.Errorf("New(%q).Name() = %q, want %q", name, p.Name(), want)
		}
	}
	if _, err := New("aws", Options{}); err == nil || !strings.Contains(err.Error(), "talos.platform=aws") {
		t.Errorf("New(aws) = %v", err)
	}
}

func TestContainer(t *testing.T) {
	b := newBench(t, "")
	p := b.platform(t, Container)
	answers(t, p, "", "", "")
	if m, err := p.Metadata(t.Context()); err != nil || m.Platform != "container" || m.Hostname != "" {
		t.Errorf("Metadata = %+v, %v", m, err)
	}
	b.write(t, "platform/config.yaml", "version: v1alpha1\n")
	b.write(t, "platform/hostname", "demo-1\n")
	answers(t, p, "version: v1alpha1\n", "the platform", "")
	if n, err := p.Network(t.Context()); err != nil || n.Hostname != "demo-1" {
		t.Errorf("Network = %+v, %v", n, err)
	}
	b.write(t, "platform/hostname", "a b\n")
	if _, err := p.Network(t.Context()); err == nil {
		t.Error("a host name that is none is taken")
	}
}

// TestAtHand: nobody is asked but oneself.
func TestAtHand(t *testing.T) {
	asked := 0
	url := server(t, func(http.ResponseWriter, *http.Request) { asked++ })
	for _, tt := range []struct {
		platform, arguments string
		there               bool
	}{
		{Container, "", true}, {Metal, "", false}, {Metal, "talos.config=" + url, false}, {Metal, "talos.config=metal-iso", false}, {NoCloud, "", false},
		{NoCloud, "ds=nocloud;s=" + url, false},
	} {
		b := newBench(t, tt.arguments)
		b.write(t, "platform/config.yaml", "version: v1alpha1\n")
		if got, _, err := b.platform(t, tt.platform).AtHand(t.Context()); (got != nil) != tt.there || err != nil {
			t.Errorf("%s %s: AtHand = %q, %v, want something: %v", tt.platform, tt.arguments, got, err, tt.there)
		}
	}
	if _, _, err := newBench(t, "talos.config.inline=%").platform(t, NoCloud).AtHand(t.Context()); err == nil {
		t.Error("AtHand has not looked at the command line")
	}
	if asked > 0 {
		t.Error("a server was asked")
	}
}

// server answers on the loopback.
func server(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

func TestMetal(t *testing.T) {
	answers(t, newBench(t, "").platform(t, Metal), "", "", "")
	asked := ""
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RequestURI()
		switch {
		case strings.HasPrefix(asked, "/moved"):
			http.Redirect(w, r, "/good", http.StatusFound)
		case strings.HasPrefix(asked, "/loop"):
			http.Redirect(w, r, "/loop", http.StatusFound)
		case strings.HasPrefix(asked, "/file"):
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		case strings.HasPrefix(asked, "/good"):
			fmt.Fprint(w, "version: v1alpha1\n")
		case strings.HasPrefix(asked, "/umlauts"):
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, "x"+strings.Repeat("ü", 200))
		case strings.HasPrefix(asked, "/empty"):
		case strings.HasPrefix(asked, "/long"):
			w.Write(bytes.Repeat([]byte("#"), config.MaxSize+1))
		case strings.HasPrefix(asked, "/cut"):
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("x"))
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "no such machine\x1b[2J\nsecond line")
		}
	})
	locked := server(t, http.NotFound)
	for _, tt := range []struct{ path, document, problem, asked string }{
		{"/good", "version: v1alpha1\n", "", "/good"},
		{"/good?u=${uuid}&s=${serial}&m=${mac}&h=${hostname}", "version: v1alpha1\n", "",
			"/good?u=4c4c4544-0042-3510-8051-b8c04f4a4e32&s=S%2FN%201%2B1&m=02%3A00%3A00%3A00%3A00%3A01&h=one"},
		{"/good/${serial}", "version: v1alpha1\n", "", "/good/S%2FN%201%2B1"},
		{"/moved", "version: v1alpha1\n", "", "/good"},
		{"/loop", "", "redirected more than 5 times", ""},
		{"/file", "", "redirected to file:///etc/passwd: want http or https", ""},
		{"/empty", "", "the answer is empty", ""},
		{"/long", "", "the answer is longer than 8388608 bytes", ""},
		{"/cut", "", "read the answer: unexpected EOF", ""},
		{"/other", "", "configuration server " + url + "/other: answered 404 Not Found: no such machine[2J", ""},
		{"/umlauts", "", "answered 418 I'm a teapot: x" + strings.Repeat("ü", 59), ""},
		{"/${nonsense}", "", "${nonsense} is not known", ""},
		{"/${uuid", "", "${uuid has no end", ""},
	} {
		answers(t, newBench(t, "talos.config="+url+tt.path).platform(t, Metal), tt.document, url, tt.problem)
		if tt.asked != "" && asked != tt.asked {
			t.Errorf("%s: asked for %s, want %s", tt.path, asked, tt.asked)
		}
	}
	closedServer := httptest.NewServer(nil)
	closedServer.Close()
	answers(t, newBench(t, "talos.config="+closedServer.URL+"/x").platform(t, Metal), "", "",
		"configuration server "+closedServer.URL+"/x: dial tcp "+strings.TrimPrefix(closedServer.URL, "http://")+": connect: connection refused")
	answers(t, newBench(t, "talos.config=ftp://a/b").platform(t, Metal), "", "", "want http://, https:// or metal-iso")
	answers(t, newBench(t, "talos.config=http://user:secret@"+strings.TrimPrefix(locked, "http://")+"/x").platform(t, Metal), "", "", "http://user:xxxxx@")

	for text, want := range map[string]bool{"talos.config=ftp://a/b": true, "talos.config=http://a/${b}": true, "talos.config=" + url + "/other": false} {
		_, _, err := newBench(t, text).platform(t, Metal).Configuration(t.Context())
		if permanent(err) != want {
			t.Errorf("%s: %v is permanent: %v, want %v", text, err, !want, want)
		}
	}
}

// TestUnknownMachine: what is not known yet is waited for, and said.
func TestUnknownMachine(t *testing.T) {
	for variable, want := range map[string]string{
		"uuid": "the firmware tells none", "serial": "the firmware tells none", "mac": "there is no Ethernet link yet", "hostname": "the machine has no name yet",
	} {
		b := newBench(t, "talos.config=http://user:secret@127.0.0.1/${"+variable+"}")
		b.Machine = nil
		b.write(t, "dmi/product_uuid", "00000000-0000-0000-0000-000000000000\n")
		b.write(t, "dmi/product_serial", "Not Specified\n")
		_, _, err := b.platform(t, Metal).Configuration(t.Context())
		if err == nil || !strings.Contains(err.Error(), "${"+variable+"}: "+want) || permanent(err) {
			t.Errorf("%s: %v, want %q for now", variable, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v tells the password", variable, err)
		}
	}
}

func TestInline(t *testing.T) {
	pack := func(text string) string {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(w.EncodeAll([]byte(text), nil))
	}
	for text, want := range map[string]struct{ document, problem string }{
		pack("version: v1alpha1\n"):                         {"version: v1alpha1\n", ""},
		strings.TrimRight(pack("version: v1alpha1\n"), "="): {"version: v1alpha1\n", ""},
		"%%%": {"", "illegal base64"},
		base64.StdEncoding.EncodeToString([]byte("plain")): {"", "zstd"},
		pack("version: v1alpha1\n")[:12]:                   {"", "zstd"},
		pack(" \n"):                                        {"", "it is empty"},
		pack(strings.Repeat("#", config.MaxSize+1)):        {"", "longer than 8388608 bytes"},
	} {
		p := newBench(t, "talos.config.inline="+text).platform(t, Metal)
		answers(t, p, want.document, "talos.config.inline", want.problem)
		if _, _, err := p.Configuration(t.Context()); want.problem != "" && !permanent(err) {
			t.Errorf("%v is not permanent", err)
		}
	}
}

func TestMetalVolume(t *testing.T) {
	b := newBench(t, "talos.config=metal-iso")
	answers(t, b.platform(t, Metal), "", "", "volume metal-iso: there is no such volume")
	b.volume(t, "iso9660", map[string]string{"user-data": "not this one"})
	answers(t, b.platform(t, Metal), "", "", "there is no such volume")
	b.volume(t, "fat32", map[string]string{"config.yaml": ""})
	answers(t, b.platform(t, Metal), "", "", "config.yaml is empty")
	b.write(t, "fat32/config.yaml", "version: v1alpha1\n")
	answers(t, b.platform(t, Metal), "version: v1alpha1\n", "the volume metal-iso", "")

	// A volume may hold links to anywhere: nothing outside of it is read.
	path := filepath.Join(b.dir, "fat32", "config.yaml")
	for target, want := range map[string]string{"/etc/passwd": "path escapes", "../dmi/product_uuid": "path escapes", ".": "not a file"} {
		if err := errors.Join(os.Remove(path), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
		answers(t, b.platform(t, Metal), "", "", want)
	}
}

func TestMetalMetadata(t *testing.T) {
	got, err := newBench(t, "talos.hostname=one").platform(t, Metal).Metadata(t.Context())
	want := runtime.PlatformMetadataSpec{Platform: "metal", Hostname: "one", InstanceID: "4c4c4544-0042-3510-8051-b8c04f4a4e32"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("Metadata (-want +got), %v:\n%s", err, diff)
	}
}

// authority signs certificates for servers on the loopback.
func authority(t *testing.T, notBefore time.Time) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "config.example.org"}, NotBefore: notBefore, NotAfter: notBefore.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestClock: a machine without a battery is told what is wrong, and gets its
// configuration once its clock is right.
func TestClock(t *testing.T) {
	started := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	roots, cert := authority(t, started)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, "http://127.0.0.1/plain", http.StatusFound)
			return
		}
		fmt.Fprint(w, "version: v1alpha1\n")
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)

	b := newBench(t, "talos.config="+s.URL+"/c")
	clock := time.Date(1970, 1, 1, 0, 0, 13, 0, time.UTC)
	b.Fetch = fetch.New(roots, func() time.Time { return clock }).Get
	p := b.platform(t, Metal)
	answers(t, p, "", "", "its certificate is valid from 2026-01-01T00:00:00Z on, but the machine's clock says 1970-01-01T00:00:13Z: the clock is wrong, waiting for time to be synchronised")
	clock = started.AddDate(1, 0, 0)
	answers(t, p, "version: v1alpha1\n", s.URL, "")
	clock = started.AddDate(20, 0, 0)
	_, _, err := p.Configuration(t.Context())
	if err == nil || !strings.Contains(err.Error(), "was valid until 2036-01-01T00:00:00Z, but the machine's clock says 2046-01-01T00:00:00Z") || strings.Contains(err.Error(), "clock is wrong") {
		t.Errorf("after the certificate's end: %v", err)
	}

	clock = started.AddDate(1, 0, 0)
	b.Cmdline = cmdline.Parse("talos.config=" + s.URL + "/down")
	answers(t, b.platform(t, Metal), "", "", "redirected from https to http")
	b.Cmdline, b.Fetch = cmdline.Parse("talos.config="+s.URL+"/c"), fetch.New(x509.NewCertPool(), func() time.Time { return clock }).Get
	answers(t, b.platform(t, Metal), "", "", "certificate signed by unknown authority")
}

// TestStops: a server that says nothing holds nobody once the call is given up.
func TestStops(t *testing.T) {
	asked := make(chan struct{})
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, _, err := newBench(t, "talos.config="+url).platform(t, Metal).Configuration(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Configuration = %v, want that it was given up", err)
	}
}
