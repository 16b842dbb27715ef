package udevd

import (
	"log/slog"
	"testing"
)

// BenchmarkColdplug is what the start of a machine waits for.
func BenchmarkColdplug(b *testing.B) {
	for b.Loop() {
		d := New(Options{Log: slog.New(slog.DiscardHandler), KernelNames: true, Accounts: Accounts{Groups: groups}, Dev: b.TempDir(), Run: b.TempDir()})
		d.coldplug()
	}
}
