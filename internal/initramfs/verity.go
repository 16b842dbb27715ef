package initramfs

import (
	"fmt"

	"talos/internal/linux/dm"
	"talos/internal/verity"
)

// checked is the table of a device whose blocks are checked against a tree of
// SHA-256 hashes that lies behind them on the same device, without a superblock
// and without salt (Documentation/admin-guide/device-mapper/verity.rst). A block
// that does not match is an I/O error.
func checked(device string, p verity.Param) dm.Target {
	return dm.Target{
		Length: p.Blocks * (verity.BlockSize / dm.SectorSize), Type: "verity",
		Params: fmt.Sprintf("1 %s %s %d %d %d %d sha256 %s -", device, device, verity.BlockSize, verity.BlockSize, p.Blocks, p.Blocks, p.Root),
	}
}
