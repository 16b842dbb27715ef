package secureboot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foxboron/go-uefi/pkcs7"

	"talos/internal/uki"
)

// ours and theirs make keys once: RSA takes its time.
var ours, theirs = sync.OnceValues(generate), sync.OnceValues(generate)

func generate() ([]File, error) { return Generate("Test", nil, time.Now()) }

// folder writes keys.
func folder(t testing.TB, keys func() ([]File, error)) string {
	t.Helper()
	files, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range files {
		mode := os.FileMode(0o644)
		if f.Private {
			mode = 0o600
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t testing.TB, dir string) *Keys {
	t.Helper()
	k, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// tool finds one of Debian's programs. REQUIRE_IMAGE=1 (CI) makes a missing one
// a failure.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatalf("%s is not installed, and REQUIRE_IMAGE=1", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// program is Debian's boot loader, whose length needs padding.
func program(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
	if err != nil {
		if os.Getenv("REQUIRE_IMAGE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return b
}

func sign(t testing.TB, b []byte, k *Keys) []byte {
	t.Helper()
	out, err := Sign(b, k.DB)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func verify(b []byte, k *Keys) error {
	return Verify(bytes.NewReader(b), int64(len(b)), k.DB.Certificate)
}

func TestSignAndVerify(t *testing.T) {
	k, other := load(t, folder(t, ours)), load(t, folder(t, theirs))
	plain := program(t)
	if err := verify(plain, k); !errors.Is(err, ErrNotSigned) {
		t.Errorf("Verify of what is not signed = %v, want %v", err, ErrNotSigned)
	}
	signed := sign(t, plain, k)
	if err := verify(signed, k); err != nil {
		t.Errorf("Verify = %v", err)
	}
	if err := verify(signed, other); !errors.Is(err, ErrNotSigned) {
		t.Errorf("Verify by another certificate = %v, want %v", err, ErrNotSigned)
	}
	both := sign(t, signed, other)
	for _, k := range []*Keys{k, other} {
		if err := verify(both, k); err != nil {
			t.Errorf("Verify of what is signed twice = %v", err)
		}
	}
	f, err := uki.Open(bytes.NewReader(both), int64(len(both)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Section(".osrel"); err != nil {
		t.Errorf("of the signed program: %v", err)
	}
}

// TestEveryByteIsSigned: a changed bit in any part of the program is noticed.
func TestEveryByteIsSigned(t *testing.T) {
	k := load(t, folder(t, ours))
	signed := sign(t, program(t), k)
	f, err := uki.Signature(bytes.NewReader(signed), int64(len(signed)))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 0x100, f.Checksum - 1, f.Checksum + 4, f.Directory + 8, 0x400, 0x10000, f.Table - 1} {
		changed := bytes.Clone(signed)
		changed[at] ^= 0x10
		if err := verify(changed, k); err == nil {
			t.Errorf("byte %#x changed: Verify = nil", at)
		}
	}
	if err := verify(append(signed, make([]byte, 8)...), k); err == nil {
		t.Error("8 bytes added: Verify = nil")
	}
}

// TestForgedStatement: a statement that fits a changed program is not what was
// signed, though nothing else of the signature was touched.
func TestForgedStatement(t *testing.T) {
	k := load(t, folder(t, ours))
	plain := program(t)
	signed := sign(t, plain, k)
	digestOf := func(b []byte) []byte {
		f, err := uki.Signature(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		d, err := digest(bytes.NewReader(b), f, f.Table)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	changed := bytes.Clone(signed)
	changed[0x10000] ^= 0x10
	forged := bytes.Replace(changed, digestOf(signed), digestOf(changed), 1)
	if bytes.Equal(forged, changed) {
		t.Fatal("the digest was not found in the signature")
	}
	if err := verify(forged, k); !errors.Is(err, ErrNotSigned) || !strings.Contains(err.Error(), "does not fit its statement") {
		t.Errorf("Verify of a forged statement = %v, want it refused", err)
	}
}

// TestReference: Debian's tools take our signatures, and we take theirs.
func TestReference(t *testing.T) {
	sbverify, sbsign := tool(t, "sbverify"), tool(t, "sbsign")
	dir := folder(t, ours)
	k := load(t, dir)
	key, crt := filepath.Join(dir, "db.key"), filepath.Join(dir, "db.crt")
	mine, other := filepath.Join(dir, "ours.efi"), filepath.Join(dir, "theirs.efi")
	image, err := uki.Build(stub(t), uki.Section{Name: ".linux", Data: []byte("kernel")})
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{"boot loader": program(t), "kernel image": image} {
		if err := os.WriteFile(mine, sign(t, in, k), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(sbverify, "--cert", crt, mine).CombinedOutput()
		if err != nil {
			t.Errorf("%s: sbverify: %v\n%s", name, err, out)
		}
		// Of the boot loader it says that symbols follow the sections.
		if name == "kernel image" && strings.Contains(string(out), "warning") {
			t.Errorf("%s: sbverify: %s", name, out)
		}
		plain := filepath.Join(dir, "plain.efi")
		if err := os.WriteFile(plain, in, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(sbsign, "--key", key, "--cert", crt, "--output", other, plain).CombinedOutput(); err != nil {
			t.Fatalf("%s: sbsign: %v\n%s", name, err, out)
		}
		signed, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(signed, k); err != nil {
			t.Errorf("%s: Verify of what sbsign signed = %v", name, err)
		}
	}
}

func stub(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		t.Fatal(err) // from the same package as the boot loader
	}
	return b
}

// TestEnrolment: the lists hold what they should, and each is signed by the key
// that admits it, over what the firmware will look at.
func TestEnrolment(t *testing.T) {
	dir := folder(t, ours)
	by := map[string]string{"PK": "PK", "KEK": "PK", "db": "KEK"}
	for _, v := range []variable{pk, kek, db} {
		read := func(name string) []byte {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		list, auth, der := read(v.name+".esl"), read(v.name+".auth"), read(v.name+".der")
		if n := binary.LittleEndian.Uint32(list[16:]); int(n) != len(list) || !bytes.Equal(list[44:], der) {
			t.Errorf("%s.esl: a list of %d bytes in %d, want the certificate in it", v.name, n, len(list))
		}
		n := int(binary.LittleEndian.Uint32(auth[16:]))
		if !bytes.Equal(auth[16+n:], list) {
			t.Errorf("%s.auth does not end with the list", v.name)
		}
		certificate, err := ReadCertificate(filepath.Join(dir, by[v.name]+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := pkcs7.ParsePKCS7(auth[40 : 16+n])
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := p.Verify(certificate); !ok || err != nil {
			t.Errorf("%s.auth is not signed by %s: %v, %v", v.name, by[v.name], ok, err)
		}
		signed := slices.Concat([]byte(strings.Join(append(strings.Split(v.name, ""), ""), "\x00")),
			v.vendor[:], []byte{0x27, 0, 0, 0}, auth[:16], list)
		if sum := sha256.Sum256(signed); !bytes.Equal(p.SignerInfo[0].AuthenticatedAttributes.MessageDigest, sum[:]) {
			t.Errorf("%s.auth signs something else than name, vendor, attributes, time and list", v.name)
		}
	}
}

// TestListReference: sign-efi-sig-list's companion makes the same lists.
func TestListReference(t *testing.T) {
	program := tool(t, "cert-to-efi-sig-list")
	dir := folder(t, ours)
	out := filepath.Join(dir, "theirs.esl")
	want, err := os.ReadFile(filepath.Join(dir, "KEK.esl"))
	if err != nil {
		t.Fatal(err)
	}
	g := want[28:44]
	owner := strings.ToLower(strings.Join([]string{
		hexBytes(g[3], g[2], g[1], g[0]), hexBytes(g[5], g[4]), hexBytes(g[7], g[6]), hexBytes(g[8:10]...), hexBytes(g[10:]...),
	}, "-"))
	if b, err := exec.Command(program, "-g", owner, filepath.Join(dir, "KEK.crt"), out).CombinedOutput(); err != nil {
		t.Fatalf("cert-to-efi-sig-list: %v\n%s", err, b)
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
		t.Errorf("KEK.esl differs from that of cert-to-efi-sig-list (%v)", err)
	}
}

func hexBytes(b ...byte) string {
	const digits = "0123456789abcdef"
	var s []byte
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

func TestLoadRefuses(t *testing.T) {
	other := folder(t, theirs)
	swap := func(name string) func(string) error {
		return func(dir string) error {
			data, err := os.ReadFile(filepath.Join(other, name))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	for name, spoil := range map[string]func(string) error{
		"no key": remove("db.key"), "no certificate": remove("db.crt"), "another's key": swap("db.key"), "one of the enrolments": remove("KEK.auth"),
	} {
		dir := folder(t, ours)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if k, err := Load(dir); err == nil {
			t.Errorf("%s: Load = %v, want an error", name, k.DB.Certificate.Subject)
		}
	}
}

// TestChecksumsKey: both halves are read back and belong together, and openssl
// verifies what the private one signs.
func TestChecksumsKey(t *testing.T) {
	openssl := tool(t, "openssl")
	dir := folder(t, ours)
	private, err := ReadChecksumsKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ReadChecksumsPublicKey(filepath.Join(dir, ChecksumsFile))
	if err != nil {
		t.Fatal(err)
	}
	if !public.Equal(private.Public()) {
		t.Error("the halves don't belong together")
	}
	out, err := exec.Command(openssl, "pkey", "-in", filepath.Join(dir, checksumsKeyFile), "-pubout").Output()
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(filepath.Join(dir, ChecksumsFile)); err != nil || !bytes.Equal(out, want) {
		t.Errorf("openssl pkey -pubout = %q, want %q (%v)", out, want, err)
	}
	if _, err := ReadChecksumsKey(filepath.Join(dir, "db.key")); err == nil {
		t.Error("ReadChecksumsKey of an RSA key = nil error")
	}
	if _, err := ReadChecksumsPublicKey(filepath.Join(dir, "db.crt")); err == nil {
		t.Error("ReadChecksumsPublicKey of a certificate = nil error")
	}
}

// FuzzVerify: no signature makes the check panic, and none that was changed
// passes while the program's digest is another.
func FuzzVerify(f *testing.F) {
	k := load(f, folder(f, ours))
	content, err := indirectData(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	der, err := pkcs7.SignPKCS7(k.DB.Key, k.DB.Certificate, oidIndirectData, content)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	other := bytes.Repeat([]byte{1}, 32)
	f.Fuzz(func(t *testing.T, der []byte) {
		if err := verifyEntry(der, other, k.DB.Certificate); err == nil {
			t.Error("a signature of nothing that was signed passes")
		}
	})
}
