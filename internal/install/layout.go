package install

import (
	"github.com/google/uuid"

	"talos/internal/gpt"
	"talos/internal/meta"
	"talos/internal/slot"
	"talos/internal/volume"
	"talos/internal/wipe"
)

const mib = 1 << 20

// EFILabel is the label of the EFI system partition.
const EFILabel = "EFI"

// RootSize is the size of a root partition, and so the most that an image may have.
const RootSize = 192 * mib

// part is a partition of the system disk.
type part struct {
	label string
	kind  uuid.UUID
	size  int64
	holds string // in words, for the plan
}

// parts are the partitions that an installation makes. EPHEMERAL comes at the
// first boot and takes the rest.
func parts(sector int) []part {
	efi := int64(256 * mib)
	if sector > 2048 {
		efi = 288 * mib // with clusters of 4096 bytes less would not be FAT32
	}
	return []part{
		{EFILabel, gpt.TypeEFI, efi, "boot loader and kernel images"},
		{slot.A.RootLabel(), gpt.TypeRoot, RootSize, "the system"},
		{slot.B.RootLabel(), gpt.TypeRoot, RootSize, "empty, for the next version"},
		{wipe.Meta, gpt.TypeLinux, 1 * mib, "facts about the machine"},
		{wipe.State, gpt.TypeLinux, 100 * mib, "configuration and identity"},
	}
}

// META's two copies fit into its partition.
var _ [mib - 2*meta.CopySize]byte

// MinSize is the least that a disk of a machine must have, in bytes.
func MinSize(sector int) int64 { return ImageSize(sector) + volume.MinEphemeral }

// ImageSize is the least that can be installed on, in bytes: a disk image that
// is to be grown before it is started, for there is no room for EPHEMERAL.
func ImageSize(sector int) int64 {
	size := int64(3 * gpt.Align) // a table at either end, and the blank start of EPHEMERAL
	for _, p := range parts(sector) {
		size += p.size
	}
	return size
}
