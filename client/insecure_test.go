package client_test

import (
	"crypto/tls"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"talos/client"
	"talos/internal/pki"
)

// blank is a machine in maintenance mode, and the fingerprint that its console
// shows.
func blank(t *testing.T) (*endpoint, pki.Fingerprint) {
	t.Helper()
	made, err := pki.NewMaintenance(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := pki.TLS(made)
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{name: "blank"}
	e.serve(t, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}})
	return e, pki.KeyFingerprint(pair.Leaf)
}

func insecurely(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	o.Insecure, o.Path = true, "/nonexistent/talosconfig" // which nobody reads
	c, err := client.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestInsecure: the machine is called by its own address, and its fingerprint
// told, or compared.
func TestInsecure(t *testing.T) {
	machine, print := blank(t)
	other, otherPrint := blank(t)
	for name, tc := range map[string]struct {
		expected []string
		want     client.Kind
		told     []string
	}{
		"nothing to compare with": {nil, "", []string{print.String()}},
		"the right one":           {[]string{print.String()}, "", nil},
		"hexadecimal":             {[]string{hex.EncodeToString(print[:])}, "", nil},
		"one of several":          {[]string{otherPrint.String(), print.String()}, "", nil},
		"another":                 {[]string{otherPrint.String()}, client.UntrustedServer, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var told []string
			c := insecurely(t, client.Options{Nodes: []string{machine.address}, Fingerprints: tc.expected, Seen: func(f string) { told = append(told, f) }})
			reply, err := c.Machine.Hostname(t.Context(), &emptypb.Empty{})
			if tc.want == "" && (err != nil || reply.GetMessages()[0].GetHostname() != "blank") {
				t.Errorf("Hostname = %v, %v", reply, err)
			}
			if tc.want != "" && (!errors.Is(err, tc.want) || !strings.Contains(err.Error(), print.String())) {
				t.Errorf("Hostname = %v, want %q and the fingerprint %s", err, tc.want, print)
			}
			if !slices.Equal(told, tc.told) {
				t.Errorf("told fingerprints %q, want %q", told, tc.told)
			}
			if len(c.Nodes()) > 0 {
				t.Errorf("calls name the targets %q, want none", c.Nodes())
			}
		})
	}
	if c := insecurely(t, client.Options{Endpoints: []string{other.address}}); !slices.Equal(c.Endpoints(), []string{other.address}) {
		t.Errorf("Endpoints = %q, want %q", c.Endpoints(), other.address)
	}
}

func TestInsecureRefuses(t *testing.T) {
	for name, o := range map[string]client.Options{
		"no machine":        {},
		"several":           {Nodes: []string{"10.5.0.2", "10.5.0.3"}},
		"no fingerprint":    {Nodes: []string{"10.5.0.2"}, Fingerprints: []string{"abc"}},
		"no address":        {Nodes: []string{"10.5.0.2/24"}},
		"empty fingerprint": {Nodes: []string{"10.5.0.2"}, Fingerprints: []string{""}},
	} {
		o.Insecure = true
		if c, err := client.New(t.Context(), o); err == nil {
			c.Close()
			t.Errorf("%s: New = nil, want an error", name)
		}
	}
}

// TestWrongMode: each side tells the other how it would be right.
func TestWrongMode(t *testing.T) {
	machine, print := blank(t)
	configured, ctx := setup(t, 1)
	for name, fingerprints := range map[string][]string{"without a fingerprint": nil, "with the one from before": {print.String()}} {
		seen := false
		c := insecurely(t, client.Options{Nodes: []string{configured[0].address}, Fingerprints: fingerprints, Seen: func(string) { seen = true }})
		if _, err := c.Machine.Hostname(t.Context(), &emptypb.Empty{}); !errors.Is(err, client.Configured) {
			t.Errorf("%s: Hostname of a machine that is configured = %v, want %q", name, err, client.Configured)
		}
		if seen {
			t.Errorf("%s: a fingerprint was told that nobody needs", name)
		}
	}
	ctx.Endpoints = []string{machine.address}
	c := connect(t, ctx, client.Options{})
	if _, err := c.Machine.Hostname(t.Context(), &emptypb.Empty{}); !errors.Is(err, client.Unconfigured) {
		t.Errorf("Hostname of a machine in maintenance mode = %v, want %q", err, client.Unconfigured)
	}
}
