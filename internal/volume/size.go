package volume

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

var sizeText = regexp.MustCompile(`^\s*([0-9]+(?:\.[0-9]+)?)\s*(?i:([KMGTP])(i)?)?[bB]?\s*$`)

// ParseSize reads a size as users write it, "10GB" or "1.5 TiB", in bytes: kB,
// MB and so on are powers of 1000, KiB, MiB and so on of 1024.
func ParseSize(s string) (int64, error) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("size %q: want a number with a unit, such as 4GB or 1TiB", s)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, fmt.Errorf("size %q: %w", s, err)
	}
	step := 1000.0
	if m[3] != "" {
		step = 1024
	}
	if m[2] != "" {
		n *= math.Pow(step, float64(strings.Index("KMGTP", strings.ToUpper(m[2]))+1))
	}
	if n >= 1<<63 {
		return 0, fmt.Errorf("size %q: nothing is that large", s)
	}
	return int64(n), nil
}
