package logs

import "testing"

func TestLevel(t *testing.T) {
	for line, want := range map[string]string{
		`time=x level=WARN msg="a"`:        "warn",
		`{"level":"error","msg":"x"}`:      "error",
		`level=warning`:                    "warn",
		`E1121 01:02:03.000000 1 x.go] no`: "error",
		`plain`:                            "info",
		`a levelling thing`:                "info",
	} {
		if got := Level(line); got != want {
			t.Errorf("Level(%q) = %q, want %q", line, got, want)
		}
	}
}
