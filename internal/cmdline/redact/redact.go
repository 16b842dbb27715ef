// Package redact takes the secrets out of texts that have a kernel's command line
// in them. It is pure.
package redact

import "regexp"

// Text is a text with a command line in it, or a part of one that may be cut
// off anywhere, as people may see it: without a configuration, which has the
// cluster's keys, and without the passwords of URLs.
func Text(text string) string {
	text = inlineValue.ReplaceAllString(text, "${1}REDACTED")
	return password.ReplaceAllString(text, "${1}:xxxxx@")
}

var (
	inlineValue = regexp.MustCompile(`(talos\.config\.inline="?)[^\s"]+`)
	password    = regexp.MustCompile(`(://[^\s/?#@:"]*):[^\s/?#@"]*@`)
)
