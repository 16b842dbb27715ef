// Package ntp tells a cluster's machines the time of the host that they run on,
// for those that reach no time server (SNTP, RFC 5905 and RFC 4330).
//
// It holds no state, and believes its own clock: it is no time server for
// others. Serve is safe for concurrent use.
package ntp

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"time"
)

const (
	packetLen = 48 // without extensions
	version   = 4
	client    = 3
	server    = 4
	// stratum says that the clock is this host's own, as other servers do for
	// theirs when nobody tells them the time.
	stratum   = 10
	precision = -20                  // a microsecond, as a power of two
	toEra     = 2_208_988_800        // seconds from 1900 to 1970
	refID     = 127<<24 | 127<<8 | 1 // 127.0.127.1, a local clock
)

// Reply answers a request that came in at received; the error says why not.
func Reply(request []byte, received time.Time, now func() time.Time) ([]byte, error) {
	if len(request) < packetLen {
		return nil, fmt.Errorf("%d bytes: want at least %d", len(request), packetLen)
	}
	mode, v := request[0]&7, request[0]>>3&7
	if mode != client || v < 1 || v > version {
		return nil, fmt.Errorf("mode %d of version %d: want mode %d of version 1 to %d", mode, v, client, version)
	}
	out := make([]byte, packetLen)
	out[0] = v<<3 | server
	out[1] = stratum
	out[2] = request[2] // poll interval
	p := precision
	out[3] = byte(p)
	binary.BigEndian.PutUint32(out[8:], 1<<6) // root dispersion: a millisecond, in 1/65536 seconds
	binary.BigEndian.PutUint32(out[12:], refID)
	binary.BigEndian.PutUint64(out[16:], timestamp(received)) // when the clock was last right: now
	copy(out[24:32], request[40:48])                          // origin: what the client calls now
	binary.BigEndian.PutUint64(out[32:], timestamp(received))
	binary.BigEndian.PutUint64(out[40:], timestamp(now()))
	return out, nil
}

// timestamp is seconds of the era, and their fraction of 2^32.
func timestamp(t time.Time) uint64 {
	return uint64(t.Unix()+toEra)<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}

// Serve answers requests until ctx ends, and closes conn.
func Serve(ctx context.Context, log *slog.Logger, conn net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	buf := make([]byte, 512)
	for {
		n, peer, err := conn.ReadFrom(buf)
		received := time.Now()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		reply, err := Reply(buf[:n], received, time.Now)
		if err != nil {
			log.Debug("ignored request", "peer", peer.String(), "err", err)
			continue
		}
		if _, err := conn.WriteTo(reply, peer); err != nil {
			log.Warn("send reply", "peer", peer.String(), "err", err)
		}
	}
}
