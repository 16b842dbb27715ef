package metal

import (
	"os"
	"path/filepath"
	"testing"

	"talos/internal/resources/runtime"
	"talos/internal/secureboot"
)

func TestSecurityState(t *testing.T) {
	const vars = "sys/firmware/efi/efivars/"
	for name, tt := range map[string]struct {
		files map[string]string
		want  runtime.SecurityStateSpec
	}{
		"no UEFI": {nil, runtime.SecurityStateSpec{ModuleSignatureEnforced: true}},
		"off":     {map[string]string{vars + secureboot.StateVariable: "\x06\x00\x00\x00\x00", vars + stubVariable: "x"}, runtime.SecurityStateSpec{BootedWithUKI: true, ModuleSignatureEnforced: true}},
		"on": {map[string]string{vars + secureboot.StateVariable: "\x06\x00\x00\x00\x01", vars + stubVariable: "x"},
			runtime.SecurityStateSpec{SecureBoot: true, BootedWithUKI: true, ModuleSignatureEnforced: true}},
		"odd":            {map[string]string{vars + secureboot.StateVariable: "\x01"}, runtime.SecurityStateSpec{ModuleSignatureEnforced: true}},
		"another kernel": {map[string]string{"proc/modules": ""}, runtime.SecurityStateSpec{}},
	} {
		root := t.TempDir()
		for path, text := range tt.files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := securityState(root); got != tt.want || err != nil {
			t.Errorf("%s: securityState = %+v, %v, want %+v", name, got, err, tt.want)
		}
	}
}
