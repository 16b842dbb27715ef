package verity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"testing/iotest"

	"talos/internal/cmdline"
)

// random is the same data at every run.
func random(size int64) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data) // never fails
	return data
}

// veritysetup returns the reference implementation, part of Debian's
// cryptsetup-bin. REQUIRE_IMAGE=1 (CI) makes a missing one a failure.
func veritysetup(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"veritysetup", "/sbin/veritysetup"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("REQUIRE_IMAGE") == "1" {
		t.Fatal("veritysetup is not installed, and REQUIRE_IMAGE=1")
	}
	t.Skip("veritysetup is not installed")
	return ""
}

// TestReference: root hash and tree are those that veritysetup makes, for trees
// of no level, one, two and three, with full and partial last blocks.
func TestReference(t *testing.T) {
	program := veritysetup(t)
	for _, blocks := range []uint64{1, 2, 127, 128, 129, 11000, 128*128 + 1} {
		data := random(int64(blocks) * BlockSize)
		name := filepath.Join(t.TempDir(), "data")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program, "format", "--no-superblock", "--format=1", "--hash=sha256",
			"--data-block-size=4096", "--hash-block-size=4096", "--salt=-",
			fmt.Sprintf("--data-blocks=%d", blocks), fmt.Sprintf("--hash-offset=%d", len(data)), name, name).Output()
		if err != nil {
			t.Fatalf("veritysetup format, %d blocks: %v\n%s", blocks, err, out)
		}
		found := regexp.MustCompile(`Root hash:\s+([0-9a-f]{64})`).FindSubmatch(out)
		if found == nil {
			t.Fatalf("veritysetup prints no root hash:\n%s", out)
		}
		var tree bytes.Buffer
		p, err := Build(bytes.NewReader(data), int64(len(data)), &tree)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%s:%d", found[1], blocks); p.String() != want {
			t.Errorf("%d blocks: Build = %v, want %s", blocks, p, want)
		}
		with, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(tree.Bytes(), with[len(data):]) {
			t.Errorf("%d blocks: the tree differs from veritysetup's", blocks)
		}
		if got := p.Size(); got != int64(len(with)) {
			t.Errorf("%d blocks: Size = %d, want %d", blocks, got, len(with))
		}
	}
}

// TestEveryByteCounts: a changed bit anywhere gives another root.
func TestEveryByteCounts(t *testing.T) {
	data := random(130 * BlockSize)
	want, err := Build(bytes.NewReader(data), int64(len(data)), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 4095, 4096, 128*BlockSize - 1, 128 * BlockSize, len(data) - 1} {
		data[at] ^= 1
		if got, err := Build(bytes.NewReader(data), int64(len(data)), io.Discard); err != nil || got == want {
			t.Errorf("byte %d changed: Build = %v, %v, want another root than %v", at, got, err, want)
		}
		data[at] ^= 1
	}
}

func TestBuildRefuses(t *testing.T) {
	data := bytes.NewReader(make([]byte, 2*BlockSize))
	for _, size := range []int64{-BlockSize, 0, 1, BlockSize + 1, 3 * BlockSize} {
		if p, err := Build(data, size, io.Discard); err == nil {
			t.Errorf("Build(2 blocks, size %d) = %v, want an error", size, p)
		}
	}
	broken := errors.New("no space")
	if _, err := Build(data, 2*BlockSize, errWriter{broken}); !errors.Is(err, broken) {
		t.Errorf("Build to a writer that fails = %v, want %v", err, broken)
	}
	if _, err := Build(errReader{broken}, 2*BlockSize, io.Discard); !errors.Is(err, broken) {
		t.Errorf("Build of a reader that fails = %v, want %v", err, broken)
	}
}

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }

type errReader struct{ err error }

func (r errReader) ReadAt(p []byte, _ int64) (int, error) { return iotest.ErrReader(r.err).Read(p) }

const (
	hash   = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"
	sample = hash + ":11000"
)

func TestParam(t *testing.T) {
	p, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	if p.String() != sample || p.Blocks != 11000 || p.DataSize() != 11000*4096 {
		t.Errorf("Parse(%q) = %v with %d bytes of data", sample, p, p.DataSize())
	}
	if got, want := p.Root.PartitionID(), "00112233-4455-6677-8899-aabbccddeeff"; got != want {
		t.Errorf("PartitionID = %s, want %s", got, want)
	}
	for _, s := range []string{
		"", ":", hash, hash + ":", hash + ":0", hash + ":-1", hash + ":+1", hash + ":01", hash + ": 1", hash + ":1x",
		hash + ":1:1", hash[1:] + ":1", hash + "0:1", strings.ToUpper(hash) + ":1", "zz" + hash[2:] + ":1",
		hash + ":9223372036854775807", hash + ":99999999999999999999",
	} {
		if p, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", s, p)
		}
	}
}

func TestFromCommandLine(t *testing.T) {
	const want = Argument + "=" + sample
	if p, err := FromCommandLine(cmdline.Parse("quiet  x." + want + " " + want + "\n")); err != nil || p.String() != sample {
		t.Errorf("FromCommandLine = %v, %v, want %s", p, err, sample)
	}
	for _, line := range []string{"", "quiet", Argument, Argument + "=", want + " " + want, "x" + want, `x="y ` + want + `"`, "-- " + want} {
		if p, err := FromCommandLine(cmdline.Parse(line)); err == nil {
			t.Errorf("FromCommandLine(%q) = %v, want an error", line, p)
		}
	}
}

// FuzzParse: what is taken is written back byte for byte, and its sizes are
// numbers that can be used.
func FuzzParse(f *testing.F) {
	for _, s := range []string{sample, hash + ":1", hash + ":01", hash + ":1125899906842623", "", ":", "f:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Errorf("Parse(%q) = %v", s, p)
		}
		if p.DataSize() <= 0 || p.Size() < p.DataSize() || p.Size()%BlockSize != 0 {
			t.Errorf("Parse(%q): %d bytes of data, %d in all", s, p.DataSize(), p.Size())
		}
	})
}

// TestCheck: a changed byte is found wherever it is, and its block is named.
func TestCheck(t *testing.T) {
	const blocks = 129 // a tree of two levels
	data := random(blocks * BlockSize)
	var tree bytes.Buffer
	p, err := Build(bytes.NewReader(data), int64(len(data)), &tree)
	if err != nil {
		t.Fatal(err)
	}
	image := append(data, tree.Bytes()...)
	if err := Check(bytes.NewReader(image), p); err != nil {
		t.Errorf("Check of a whole image = %v", err)
	}
	for at, want := range map[int]string{
		0: "block 0, at byte 0,", 5*BlockSize + 17: "block 5, at byte 20480,", len(data) - 1: "block 128, at byte 524288,",
		len(data): ErrTree.Error(), len(data) + BlockSize + 100: ErrTree.Error(), len(image) - 1: ErrTree.Error(),
	} {
		image[at] ^= 1
		if err := Check(bytes.NewReader(image), p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check with byte %d changed = %v, want %q", at, err, want)
		}
		image[at] ^= 1
	}
	other := p
	other.Root[0] ^= 1
	if err := Check(bytes.NewReader(image), other); !errors.Is(err, ErrData) || !strings.Contains(err.Error(), p.Root.String()) {
		t.Errorf("Check of another image = %v, want %v and whose it is", err, ErrData)
	}
	if err := Check(bytes.NewReader(image[:len(image)-1]), p); err == nil {
		t.Error("Check of an image that ends early = nil")
	}
}
