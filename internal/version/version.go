// Package version says what was built. The linker sets its variables.
package version

// Name is what the operating system calls itself.
const Name = "Talos"

// Set with -ldflags -X talos/internal/version.Tag=v0.1.0 and so on.
var (
	Tag   = "v0.1.0"
	SHA   = "unknown"
	Built = ""
)
