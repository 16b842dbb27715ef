package client

import "testing"

func TestSplitEndpoint(t *testing.T) {
	for in, want := range map[string]string{
		"10.5.0.2":             "10.5.0.2 50000",
		"10.5.0.2:1234":        "10.5.0.2 1234",
		"node.example":         "node.example 50000",
		"https://node.example": "node.example 50000",
		"fd00::1":              "fd00::1 50000",
		"[fd00::1]":            "fd00::1 50000",
		"[fd00::1]:1234":       "fd00::1 1234",
		"":                     "",
		"node:http":            "",
		"node:99999":           "",
		"a b":                  "",
		"node/path":            "",
		":50000":               "",
	} {
		host, port, err := splitEndpoint(in)
		got := host + " " + port
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("splitEndpoint(%q) = %q, want %q (error %v)", in, got, want, err)
		}
	}
}
