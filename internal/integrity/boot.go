package integrity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"talos/internal/cmdline"
	"talos/internal/fat"
	"talos/internal/gpt"
	"talos/internal/install"
	"talos/internal/slot"
	"talos/internal/verity"
)

// notFromDisk is why nothing is said of what starts the machine.
const notFromDisk = reason("the root is in memory: the machine was started from a medium or over the network, and what did that can't be read again")

// bootFiles is what starts the machine from its disk.
type bootFiles struct {
	slot  slot.ID
	disk  *gpt.Disk
	read  *reader // from the disk
	files []fat.File
}

// find returns the one file of that name, which takes no notice of capitals. Of
// two the firmware could take the other.
func (b *bootFiles) find(name string) (*fat.File, error) {
	var found *fat.File
	for i, f := range b.files {
		if !strings.EqualFold(f.Name, name) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("the EFI system partition has %s twice", name)
		}
		found = &b.files[i]
	}
	if found == nil {
		return nil, fmt.Errorf("the EFI system partition has no %s", name)
	}
	return found, nil
}

// bootEntry finds the slot that the root is in, on the disk that it is on, and
// says whether the loader's entry for it is of this version and root.
func (v *verification) bootEntry(ctx context.Context) (string, error) {
	if v.root == nil || v.device == "" {
		return "", errBefore
	}
	b, err := v.findBoot(ctx)
	if why := reason(""); errors.As(err, &why) {
		v.noBoot = why
	}
	if err != nil {
		return "", err
	}
	v.boot = b
	entry, err := b.entry()
	if err != nil {
		return "", err
	}
	if entry.Version != v.Version {
		return "", fmt.Errorf("%s is of version %s, and %s runs", entry.Name(), entry.Version, v.Version)
	}
	if v.options = entry.Options; v.options != "" {
		if err := v.sameRoot(v.options); err != nil {
			return "", fmt.Errorf("%s: %w", entry.Name(), err)
		}
	}
	return fmt.Sprintf("slot %s, %s", b.slot, entry.Name()), nil
}

// started is what starts the machine, or why nothing can be said of that.
func (v *verification) started() (*bootFiles, error) {
	switch {
	case v.boot != nil:
		return v.boot, nil
	case v.noBoot != "":
		return nil, v.noBoot
	}
	return nil, errBefore
}

func (v *verification) findBoot(ctx context.Context) (*bootFiles, error) {
	sys := v.path("sys", "dev", "block", v.device)
	if _, err := os.Stat(filepath.Join(sys, "loop")); err == nil {
		return nil, notFromDisk
	}
	number, err := v.text("sys", "dev", "block", v.device, "partition")
	if err != nil {
		return nil, fmt.Errorf("the root is on %s, which is neither a partition nor a loop device: %w", v.node(v.device), err)
	}
	real, err := filepath.EvalSymlinks(sys)
	if err != nil {
		return nil, err
	}
	disk := filepath.Base(filepath.Dir(real))
	d, err := gpt.OpenReadOnly(v.path("dev", strings.ReplaceAll(disk, "!", "/")))
	if err != nil {
		return nil, err
	}
	b := &bootFiles{disk: d, read: v.open(ctx, d.File, 0)}
	if err := b.load(v.root.Root, number); err != nil {
		d.Close()
		return nil, fmt.Errorf("disk %s: %w", d.Name(), err)
	}
	return b, nil
}

// load finds the slot and lists the files of the EFI system partition.
func (b *bootFiles) load(root verity.Root, number string) error {
	table, err := gpt.Read(b.disk)
	if err != nil {
		return err
	}
	ids, numbers := map[slot.ID]string{}, map[slot.ID]int{}
	for _, id := range []slot.ID{slot.A, slot.B} {
		if p, ok := table.Find(id.RootLabel()); ok {
			ids[id], numbers[id] = p.ID.String(), p.Number
		}
	}
	current, ok, err := slot.Current(root, ids)
	if err != nil {
		return err
	}
	if !ok || strconv.Itoa(numbers[current]) != number {
		return fmt.Errorf("the root is on partition %s, and that is neither slot", number)
	}
	esp, err := install.Place(b.disk, install.EFILabel)
	if err != nil {
		return err
	}
	b.slot = current
	b.files, err = fat.Read(io.NewSectionReader(b.read, esp.Offset, esp.Size))
	if err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	return nil
}

// entry is the loader's entry for the slot.
func (b *bootFiles) entry() (slot.Entry, error) {
	files, err := slot.Of(b.files)
	if err != nil {
		return slot.Entry{}, err
	}
	files[b.slot.KernelPath()] = nil // whether it is there is another check's
	state, err := slot.Read(files)
	if err != nil {
		return slot.Entry{}, err
	}
	entry, ok := state.Entry(b.slot)
	if !ok {
		return slot.Entry{}, fmt.Errorf("the boot loader has no entry for slot %s", b.slot)
	}
	return entry, nil
}

// sameRoot says whether a command line names the root that runs.
func (v *verification) sameRoot(line string) error {
	p, err := verity.FromCommandLine(cmdline.Parse(line))
	if err != nil {
		return err
	}
	if p != *v.root {
		return fmt.Errorf("it starts the root %s, and %s runs", p, *v.root)
	}
	return nil
}
