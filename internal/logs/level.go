package logs

import (
	"regexp"
	"strings"
)

// levels finds what the line itself says: slog's text (level=WARN), JSON
// ("level":"warn"), or klog's first letter (W0102 15:04:05…).
var (
	keyed = regexp.MustCompile(`(?i)\blevel"?[=:]"?(debug|info|warn|warning|error|fatal|panic)\b`)
	klog  = regexp.MustCompile(`^([IWEF])\d{4} \d\d:\d\d:\d\d`)
)

// Level is the severity of a line, by what it says itself: debug, info, warn or error.
func Level(line string) string {
	if m := keyed.FindStringSubmatch(line); m != nil {
		switch name := strings.ToLower(m[1]); name {
		case "warning":
			return "warn"
		case "fatal", "panic":
			return "error"
		default:
			return name
		}
	}
	if m := klog.FindStringSubmatch(line); m != nil {
		return map[string]string{"I": "info", "W": "warn", "E": "error", "F": "error"}[m[1]]
	}
	return "info"
}
