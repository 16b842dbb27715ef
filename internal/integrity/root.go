package integrity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"

	"talos/internal/cmdline"
	"talos/internal/linux/dm"
	"talos/internal/verity"
)

// rootHash reads what the kernel was told.
func (v *verification) rootHash(context.Context) (string, error) {
	line, err := v.text("proc", "cmdline")
	if err != nil {
		return "", err
	}
	p, err := verity.FromCommandLine(cmdline.Parse(line))
	if err != nil {
		return "", err
	}
	v.root = &p
	return p.String(), nil
}

// rootDevice says whether the mounted root is a device that checks every block
// against just that hash, and none has failed yet.
func (v *verification) rootDevice(context.Context) (string, error) {
	if v.root == nil {
		return "", errBefore
	}
	number, err := v.mounted()
	if err != nil {
		return "", err
	}
	name, err := v.text("sys", "dev", "block", number, "dm", "name")
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the root is on device %s, which checks no hashes", number)
	}
	if err != nil {
		return "", err
	}
	mapper := v.Mapper
	if mapper == nil {
		mapper = kernelMapper{}
	}
	table, err := mapper.Table(name)
	if err != nil {
		return "", err
	}
	below, err := checkTable(table, *v.root)
	if err != nil {
		return "", fmt.Errorf("device %s: %w", name, err)
	}
	status, err := mapper.Status(name)
	if err != nil {
		return "", err
	}
	if len(status) != 1 || !strings.HasPrefix(status[0].Params+" ", "V ") {
		return "", fmt.Errorf("device %s has met blocks that are not as their hashes say: its state is %+v, want V", name, status)
	}
	v.device = below
	return fmt.Sprintf("dm-verity device %q on %s, no bad block met", name, filepath.Base(v.node(below))), nil
}

// mounted is the number of the device that is mounted as the root.
func (v *verification) mounted() (string, error) {
	f, err := os.Open(v.path("proc", "self", "mountinfo"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != "/", false })
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.Name(), err)
	}
	if len(mounts) != 1 {
		return "", fmt.Errorf("%s: %d file systems are mounted as the root, want one", f.Name(), len(mounts))
	}
	if kind := mounts[0].FSType; kind != "squashfs" {
		return "", fmt.Errorf("%s: the root is of type %s, want squashfs", f.Name(), kind)
	}
	return fmt.Sprintf("%d:%d", mounts[0].Major, mounts[0].Minor), nil
}

// checkTable says which device lies below one that checks against p and does
// nothing else: an option could let it ignore what it finds.
func checkTable(table []dm.Target, p verity.Param) (below string, err error) {
	if len(table) != 1 || table[0].Type != "verity" {
		return "", fmt.Errorf("it is no dm-verity device: %+v", table)
	}
	blocks, block := strconv.FormatUint(p.Blocks, 10), strconv.Itoa(verity.BlockSize)
	have := strings.Fields(table[0].Params)
	if len(have) < 2 {
		return "", fmt.Errorf("its table makes no sense: %q", table[0].Params)
	}
	below = have[1]
	want := []string{"1", below, below, block, block, blocks, blocks, "sha256", p.Root.String(), "-"}
	if table[0].Start != 0 || table[0].Length != p.Blocks*verity.BlockSize/dm.SectorSize || !slices.Equal(have, want) {
		return "", fmt.Errorf("its table is %q, want %q", table[0].Params, strings.Join(want, " "))
	}
	return below, nil
}

// node is the device node of a device number.
func (v *verification) node(number string) string {
	target, err := os.Readlink(v.path("sys", "dev", "block", number))
	if err != nil {
		return v.path("dev", "block", number)
	}
	return v.path("dev", strings.ReplaceAll(filepath.Base(target), "!", "/"))
}

// rootData reads all of the root and of its hash tree, and computes that anew.
func (v *verification) rootData(ctx context.Context) (string, error) {
	if v.root == nil || v.device == "" {
		return "", errBefore
	}
	f, err := os.Open(v.node(v.device))
	if err != nil {
		return "", err
	}
	defer f.Close()
	have, err := size(f)
	if err != nil {
		return "", err
	}
	if want := v.root.Size(); have < want {
		return "", fmt.Errorf("%s has %d bytes, want %d", f.Name(), have, want)
	}
	if err := verity.Check(v.open(ctx, f, v.root.Size()), *v.root); err != nil {
		return "", fmt.Errorf("%s: %w", f.Name(), err)
	}
	return fmt.Sprintf("%d bytes and their hash tree, read from %s", v.root.DataSize(), f.Name()), nil
}
