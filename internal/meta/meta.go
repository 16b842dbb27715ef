// Package meta reads and writes META, the small partition of facts that belong
// to the machine and survive a wipe of its configuration.
//
// It owns the format (this file) and the order of writes that keeps the values
// whole over a loss of power (store.go); what a value means is its user's
// business. The codec keeps no state; a Store is safe for concurrent use.
//
// The partition begins with two copies of 256 KiB, which is all of it that is
// used. All numbers are big-endian. A copy is
//
//	0        0x5a4b3c2d
//	4        a record per value: 4 bytes key, 4 bytes length, the value
//	         zeros; a key of 0 ends the records
//	-36      the SHA-256 of the whole copy with these 32 bytes zero
//	-4       0xa5b4c3d2
//
// Keys are below 256 and rise.
package meta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// CopySize is the size of one copy; two are at the start of the partition.
const CopySize = 256 << 10

const (
	startMagic = 0x5a4b3c2d
	endMagic   = 0xa5b4c3d2
	headSize   = 4
	recordSize = 8
	sumAt      = CopySize - 4 - sha256.Size
)

// Key names a value.
type Key uint8

// Keys that are known. 0 can't be one: it ends the records.
const (
	Upgrade             Key = 0x06 // what an upgrade falls back to
	StagedImage         Key = 0x07 // the image that the next boot installs
	StagedOptions       Key = 0x08 // how, as JSON
	StateEncryption     Key = 0x09 // how STATE is encrypted
	NetworkPlatform     Key = 0x0a // network configuration of the platform, as YAML
	DownloadCode        Key = 0x0b // fills ${code} of the URL that the configuration comes from
	UserReserved1       Key = 0x0c // the user's
	UserReserved2       Key = 0x0d
	UserReserved3       Key = 0x0e
	UUIDOverride        Key = 0x0f // the machine's UUID where the firmware's is not unique
	UniqueMachineToken  Key = 0x10
	DiskImageBootloader Key = 0x11
)

func (k Key) String() string { return fmt.Sprintf("0x%x", uint8(k)) }

// Values are the values by key.
type Values map[Key][]byte

// clone copies v deeply, so that nobody's later write shows.
func (v Values) clone() Values {
	out := make(Values, len(v))
	for k, b := range v {
		out[k] = slices.Clone(b)
	}
	return out
}

// Encode writes one copy. The same values give the same bytes.
func Encode(v Values) ([]byte, error) {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, CopySize), startMagic)
	for _, k := range slices.Sorted(maps.Keys(v)) {
		if k == 0 {
			return nil, errors.New("meta: there is no key 0")
		}
		if free := sumAt - len(b) - recordSize; len(v[k]) > free {
			return nil, fmt.Errorf("meta: value %v of %d bytes: there is room for %d more", k, len(v[k]), max(free, 0))
		}
		b = binary.BigEndian.AppendUint32(b, uint32(k))
		b = binary.BigEndian.AppendUint32(b, uint32(len(v[k])))
		b = append(b, v[k]...)
	}
	b = b[:CopySize] // made with that capacity, zeros
	binary.BigEndian.PutUint32(b[CopySize-4:], endMagic)
	sum := sha256.Sum256(b)
	copy(b[sumAt:], sum[:])
	return b, nil
}

// ErrEmpty is what Decode says of a copy that was never written.
var ErrEmpty = errors.New("nothing is written there")

// Decode reads one copy.
func Decode(b []byte) (Values, error) {
	if len(b) != CopySize {
		return nil, fmt.Errorf("meta: %d bytes, want %d", len(b), CopySize)
	}
	if start, end := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[CopySize-4:]); start != startMagic || end != endMagic {
		if allZero(b) {
			return nil, fmt.Errorf("meta: %w", ErrEmpty)
		}
		return nil, fmt.Errorf("meta: begins with %#08x and ends with %#08x, want %#08x and %#08x", start, end, uint32(startMagic), uint32(endMagic))
	}
	h := sha256.New()
	h.Write(b[:sumAt])
	h.Write(make([]byte, sha256.Size))
	h.Write(b[sumAt+sha256.Size:])
	if !bytes.Equal(h.Sum(nil), b[sumAt:sumAt+sha256.Size]) {
		return nil, errors.New("meta: the checksum is wrong")
	}
	return decodeRecords(b[headSize:sumAt])
}

func decodeRecords(b []byte) (Values, error) {
	v := Values{}
	for len(b) >= recordSize {
		key, size := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		if key == 0 {
			break
		}
		b = b[recordSize:]
		if key > 0xff {
			return nil, fmt.Errorf("meta: key %#x, want at most 0xff", key)
		}
		if uint64(size) > uint64(len(b)) {
			return nil, fmt.Errorf("meta: value %v of %d bytes, but only %d follow", Key(key), size, len(b))
		}
		if _, twice := v[Key(key)]; twice {
			return nil, fmt.Errorf("meta: value %v is there twice", Key(key))
		}
		v[Key(key)] = slices.Clone(b[:size])
		b = b[size:]
	}
	return v, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
