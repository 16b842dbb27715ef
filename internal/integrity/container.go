package integrity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"talos/internal/layout"
)

// containerChecks are those of a node in a container: all that is the host's
// can't be checked from inside, and says so.
func containerChecks() []check {
	never := func(name, why string) check {
		return check{name, func(*verification, context.Context) (string, error) { return "", reason(why) }}
	}
	const kernel = "the kernel is the host's"
	const start = "a container is started by its host, from no kernel image"
	return []check{
		never("root hash", kernel+", which was told of no root"),
		never("root device", "the host reads the root's image without checking hashes"),
		{"root data", (*verification).containerRoot},
		{"version", (*verification).version},
		never("kernel modules", kernel), never("Secure Boot", kernel), never("lockdown", kernel),
		never("boot entry", start), never("kernel image", start), never("kernel arguments", kernel),
		never("kernel image signature", start), never("boot loader signature", start),
	}
}

// containerRoot reads the whole image that the root is mounted from, and
// compares it with the digest that the cluster's supervisor has noted of it.
func (v *verification) containerRoot(ctx context.Context) (string, error) {
	noted, err := v.text(layout.RootDigestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", reason("the cluster's supervisor has noted no digest of the image; one that is created anew has it")
	}
	if err != nil {
		return "", err
	}
	number, err := v.mounted()
	if err != nil {
		return "", err
	}
	f, err := v.openNumber(number)
	if err != nil {
		return "", err
	}
	defer f.Close()
	total, err := size(f)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	r := v.open(ctx, f, total)
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(r, 0, total), make([]byte, 256<<10)); err != nil {
		return "", fmt.Errorf("%s: %w", f.Name(), err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != noted {
		return "", fmt.Errorf("the image that the root is mounted from has the SHA-256 %s, and the cluster was created with %s", got, noted)
	}
	return fmt.Sprintf("%d bytes of the image that the cluster was created with, SHA-256 %s", total, noted), nil
}

// openNumber opens the device of that number, also where /dev has no node of it.
func (v *verification) openNumber(number string) (*os.File, error) {
	f, err := os.Open(v.node(number))
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(number, "%d:%d", &major, &minor); err != nil {
		return nil, fmt.Errorf("device number %q: %w", number, err)
	}
	dir, err := os.MkdirTemp(v.path("dev"), ".verify-") // other file systems let no devices be opened
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	node := filepath.Join(dir, strings.ReplaceAll(number, ":", "-"))
	if err := unix.Mknod(node, unix.S_IFBLK|0o400, int(unix.Mkdev(major, minor))); err != nil {
		return nil, &fs.PathError{Op: "mknod", Path: node, Err: err}
	}
	return os.Open(node)
}
