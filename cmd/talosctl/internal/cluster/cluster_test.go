package cluster

import "testing"

func TestParseMemory(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "2048": 2 << 30, "2GiB": 2 << 30, "1.5Gi": 3 << 29, "512MiB": 512 << 20, "2GB": 2e9, "1G": 1e9, "4 GiB": 4 << 30,
	} {
		var got int64
		if err := parseMemory(in, &got); err != nil || got != want {
			t.Errorf("parseMemory(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "lots", "-1GiB", "GiB", "1TiBs", "1e30GiB"} {
		var got int64
		if err := parseMemory(in, &got); err == nil {
			t.Errorf("parseMemory(%q) = %d, want an error", in, got)
		}
	}
}
