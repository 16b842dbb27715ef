package disk

import "testing"

func TestPretty(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 10000: "10 kB", 999499: "999 kB", 999500: "1.0 MB", 10737418240: "11 GB", 1<<64 - 1: "18 EB",
	} {
		if got := Pretty(n); got != want {
			t.Errorf("Pretty(%d) = %q, want %q", n, got, want)
		}
	}
}
