package caps

import (
	"strings"
	"testing"
)

func TestParseEffective(t *testing.T) {
	got, err := parseEffective(strings.NewReader("Name:\tx\nCapPrm:\tff\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n"))
	if err != nil || got != 0x1fffeffffff {
		t.Errorf("parseEffective = %x, %v, want 1fffeffffff", got, err)
	}
	if _, err := parseEffective(strings.NewReader("Name:\tx\n")); err == nil {
		t.Error("parseEffective without CapEff = nil error")
	}
}
