package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"talos/client/talosconfig"
	"talos/internal/pki"
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
// cluster in $ENDPOINT, that of a machine in maintenance mode in $BLANK, and talosconfigs for it in $WORK: see writeConfigs.
func TestScripts(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	f := startFake(t, ours.serverTLS(t))
	blank, print := startBlank(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "mode": mode, "quiet": quiet},
		Setup: func(env *testscript.Env) error {
			env.Setenv("ENDPOINT", f.address)
			env.Setenv("CLOSED", "127.0.0.1:1") // where nobody listens
			env.Setenv("BLANK", blank.address)
			env.Setenv("FINGERPRINT", print.String())
			env.Setenv("HEX", hex.EncodeToString(print[:]))
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else every command takes a second longer under -race
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			return writeConfigs(t, env.WorkDir, f.address, ours, other)
		},
	})
}

// writeConfigs makes a talosconfig for each way to meet the fake cluster.
func writeConfigs(t *testing.T, dir, endpoint string, ours, other *authority) error {
	admin := ours.issue(t, template{roles: "os:admin", ends: time.Hour})
	for name, c := range map[string]struct {
		trust *authority
		pair  pki.Pair
	}{
		"admin":    {ours, admin},
		"reader":   {ours, ours.issue(t, template{roles: "os:reader", ends: time.Hour})},
		"stranger": {ours, other.issue(t, template{roles: "os:admin", ends: time.Hour})}, // certificate of another CA
		"mistaken": {other, admin},                                                       // trusts another CA
		"expired":  {ours, ours.issue(t, template{roles: "os:admin", ends: -time.Hour})},
	} {
		cfg := &talosconfig.Config{Context: "demo", Contexts: map[string]*talosconfig.Context{"demo": c.trust.context(c.pair, endpoint)}}
		if err := cfg.Save(filepath.Join(dir, name+".yaml")); err != nil {
			return err
		}
	}
	return nil
}

// startBlank is a machine without a configuration, and its fingerprint.
func startBlank(t *testing.T) (*fake, pki.Fingerprint) {
	made, err := pki.NewMaintenance(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.TLS(made)
	if err != nil {
		t.Fatal(err)
	}
	f := startFake(t, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}})
	f.blank = true
	return f, pki.KeyFingerprint(pair.Leaf)
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
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("mode of %s is %s, want %s", args[1], got, args[0])
	}
}

// quiet holds that nothing was said on standard error but, on a busy machine,
// that the answer takes its time.
func quiet(ts *testscript.TestScript, _ bool, _ []string) {
	if said := strings.ReplaceAll(ts.ReadFile("stderr"), "waiting for an answer …\n", ""); said != "" {
		ts.Fatalf("on standard error is %q", said)
	}
}

// authority is a CA as of an hour ago, so that what it signed may be over.
type authority struct {
	*pki.CA
	crt []byte
}

type template struct {
	roles  string
	server bool
	ends   time.Duration
}

func newAuthority(t *testing.T) *authority {
	pair, err := pki.NewCA(pki.Ed25519, pki.Subject{Organization: []string{"talos"}}, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.ParseCA(pair.Crt, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{CA: ca, crt: pair.Crt}
}

func (a *authority) issue(t *testing.T, tm template) pki.Pair {
	begin := time.Now().Add(-90 * time.Minute)
	in := pki.Template{Client: !tm.server, Server: tm.server, Lifetime: 90*time.Minute + tm.ends}
	if tm.server {
		in.IPs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	} else {
		in.Organization = []string{tm.roles}
	}
	pair, err := a.Issue(in, begin)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (a *authority) context(client pki.Pair, endpoint string) *talosconfig.Context {
	return &talosconfig.Context{
		Endpoints: []string{endpoint}, CA: talosconfig.Encode(a.crt),
		Crt: talosconfig.Encode(client.Crt), Key: talosconfig.Encode(client.Key),
	}
}

// serverTLS is that of a node which lets in who has a certificate of a.
func (a *authority) serverTLS(t *testing.T) *tls.Config {
	pair, err := pki.TLS(a.issue(t, template{server: true, ends: time.Hour}))
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pki.Pool(a.crt)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, Certificates: []tls.Certificate{pair},
	}
}
