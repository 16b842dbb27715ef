package active

import (
	"strings"
	"testing"
	"time"

	"talos/config"
)

func document(t *testing.T) []byte {
	t.Helper()
	bundle, err := config.NewSecrets(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	made, err := config.Generate(config.Input{ClusterName: "test", Endpoint: "https://10.5.0.1:6443", Secrets: bundle})
	if err != nil {
		t.Fatal(err)
	}
	text, err := made.Worker.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestMemory: a document is decoded once, another one anew, and a broken one
// is an error that names it.
func TestMemory(t *testing.T) {
	var m memory
	text := document(t)
	first, err := m.load(text)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.load(text); err != nil || again != first {
		t.Errorf("load(same) = %p, %v, want %p as before", again, err, first)
	}
	if _, err := m.load([]byte("machine: [")); err == nil || !strings.Contains(err.Error(), "machine configuration") {
		t.Errorf("load(broken) = %v, want an error that names the document", err)
	}
	if other, err := m.load(append(text, "# changed\n"...)); err != nil || other == first {
		t.Errorf("load(changed) = %p, %v, want another than %p", other, err, first)
	}
}
