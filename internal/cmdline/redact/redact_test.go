package redact

import "testing"

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"quiet ip=dhcp\n": "quiet ip=dhcp\n", "a=1 talos.config.inline=KLUv/SQ= b": "a=1 talos.config.inline=REDACTED b",
		"talos.config.inline=\"KLUv\" talos-config.inline=x talos.config.inline=": "talos.config.inline=\"REDACTED\" talos-config.inline=x talos.config.inline=",
		"kern: [0.000000] Command line: talos.config.inline=KLUv/SQ":              "kern: [0.000000] Command line: talos.config.inline=REDACTED",
		"talos.config=https://me:secret@host/c?u=${uuid} x":                       "talos.config=https://me:xxxxx@host/c?u=${uuid} x",
		"talos.config=https://me@host/a:b@c":                                      "talos.config=https://me@host/a:b@c",
		"ds=nocloud;s=http://:p%40ss@10.0.0.1:8080/;h=a":                          "ds=nocloud;s=http://:xxxxx@10.0.0.1:8080/;h=a",
	} {
		if got := Text(text); got != want {
			t.Errorf("Text(%q) = %q, want %q", text, got, want)
		}
	}
}
