package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"talos/client/talosconfig"
)

func TestMain(m *testing.M) {
	as := func(name string) func() {
		return func() {
			args := append([]string{name}, os.Args[1:]...)
			os.Exit(run(context.Background(), args, os.Stdin, os.Stdout, os.Stderr))
		}
	}
	testscript.Main(m, map[string]func(){"talosctl": as("talosctl"), "osctl": as("/usr/bin/osctl")})
}

// TestScripts runs the real program. Scripts find the address of a fake
// cluster in $ENDPOINT and talosconfigs for it in $WORK: see writeConfigs.
func TestScripts(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	f := startFake(t, &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.pool(),
		Certificates: []tls.Certificate{ours.pair(t, template{server: true, ends: time.Hour})},
	})
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "mode": mode},
		Setup: func(env *testscript.Env) error {
			env.Setenv("ENDPOINT", f.address)
			env.Setenv("CLOSED", closedPort(t))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			return writeConfigs(t, env.WorkDir, f.address, ours, other)
		},
	})
}

// writeConfigs makes a talosconfig for each way to meet the fake cluster.
func writeConfigs(t *testing.T, dir, endpoint string, ours, other *authority) error {
	admin := ours.pair(t, template{roles: "os:admin", ends: time.Hour})
	for name, c := range map[string]struct {
		trust *authority
		pair  tls.Certificate
	}{
		"admin":    {ours, admin},
		"reader":   {ours, ours.pair(t, template{roles: "os:reader", ends: time.Hour})},
		"stranger": {ours, other.pair(t, template{roles: "os:admin", ends: time.Hour})}, // certificate of another CA
		"mistaken": {other, admin},                                                      // trusts another CA
		"expired":  {ours, ours.pair(t, template{roles: "os:admin", ends: -time.Hour})},
	} {
		cfg := &talosconfig.Config{Context: "demo", Contexts: map[string]*talosconfig.Context{"demo": c.trust.context(t, c.pair, endpoint)}}
		if err := cfg.Save(filepath.Join(dir, name+".yaml")); err != nil {
			return err
		}
	}
	return nil
}

// exits is `exits CODE command …`: exec that checks the exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command ...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = err.Error()
	}
	if want := "exit status " + args[0]; code != want && !(args[0] == "0" && err == nil) {
		ts.Fatalf("%v: %s, want %s", args[1:], code, want)
	}
}

// mode is `mode 0600 file`.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := "0" + big.NewInt(int64(info.Mode().Perm())).Text(8); got != args[0] {
		ts.Fatalf("mode of %s is %s, want %s", args[1], got, args[0])
	}
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// authority is a CA.
type authority struct {
	crt *x509.Certificate
	key ed25519.PrivateKey
}

type template struct {
	roles  string
	server bool
	ends   time.Duration
}

func newAuthority(t *testing.T) *authority {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"talos"}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{crt: crt, key: key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.crt)
	return pool
}

func (a *authority) pair(t *testing.T, tm template) tls.Certificate {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{Organization: []string{tm.roles}}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-90 * time.Minute), NotAfter: time.Now().Add(tm.ends), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if tm.server {
		tmpl.ExtKeyUsage, tmpl.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.crt, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) context(t *testing.T, pair tls.Certificate, endpoint string) *talosconfig.Context {
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return talosconfig.Encode(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return &talosconfig.Context{
		Endpoints: []string{endpoint}, CA: encode("CERTIFICATE", a.crt.Raw), Crt: encode("CERTIFICATE", pair.Certificate[0]), Key: encode("PRIVATE KEY", key),
	}
}
