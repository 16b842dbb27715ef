package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"talos/internal/artefact"
	"talos/internal/secureboot"
)

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"nothing"}, {"iso", "-platform", "moon"}, {"iso", "more"}, {"sums"}, {"disk", "-size", "0"}, {"disk", "-size", "x"}, {"disk", "-size", ""},
		{"uki", "-secureboot", t.TempDir()}, {"initramfs", "-init", filepath.Join(t.TempDir(), "missing"), "-o", filepath.Join(t.TempDir(), "out")},
	} {
		var out, errs bytes.Buffer
		if err := run(context.Background(), args, &out, &errs); err == nil {
			t.Errorf("imager %v = nil, want an error", args)
		}
		if out.Len() > 0 {
			t.Errorf("imager %v prints %q on standard output", args, out.String())
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "4096": 4096, "2K": 2048, "3M": 3 << 20, "10G": 10 << 30, "1T": 1 << 40} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "G", "-1", "1.5G", "1g", "9999999T", "1GB"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}

// TestSums: a list is made and signed; it is made anew when a file was
// replaced, and loses its signature when there is no key any more.
func TestSums(t *testing.T) {
	dir := t.TempDir()
	files, err := secureboot.Generate("Test", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := filepath.Join(dir, artefact.SumsName)
	sums := func(args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		args = append(append([]string{"sums", "-o", list}, args...), "PK.der", "db.der")
		if err := run(context.Background(), args, &out, &errs); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want artefact.Outcome) {
		t.Helper()
		key, err := secureboot.ReadChecksumsPublicKey(filepath.Join(dir, secureboot.ChecksumsFile))
		if err != nil {
			t.Fatal(err)
		}
		results, err := artefact.Check(list, artefact.Trust{Checksums: key})
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != 3 || results[0].Outcome != want {
			t.Errorf("Check = %v, want 3 results, the signature %s", results, want)
		}
		for _, r := range results[1:] {
			if r.Outcome != artefact.OK {
				t.Errorf("%s: %s", r.Part, r.Detail)
			}
		}
	}
	sums("-key", dir)
	check(artefact.OK)
	if openssl, err := exec.LookPath("openssl"); err == nil { // as the documentation says
		out, err := exec.Command(openssl, "pkeyutl", "-verify", "-pubin", "-inkey", filepath.Join(dir, "checksums.pub"),
			"-rawin", "-in", list, "-sigfile", list+".sig").CombinedOutput()
		if err != nil {
			t.Errorf("openssl pkeyutl -verify: %v\n%s", err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "db.der"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	sums("-key", filepath.Join(dir, "checksums.key"))
	check(artefact.OK)
	sums()
	check(artefact.Failed)
}
