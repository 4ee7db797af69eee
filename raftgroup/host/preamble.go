package host

import (
	"fmt"
	"io"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A preamble opens every Raft stream. Raft itself never checks whom it talks
// to, so without it a reused address would mix up clusters, or let a new disk
// acknowledge entries in the name of the one it replaces. On the wire:
//
//	magic       4 bytes  F5 'S' 'R' 'G'; no other protocol of the port begins so
//	version     u8       1
//	cluster     16 bytes
//	incarnation 16 bytes
//	target      u8 length, bytes: the ServerID that is meant
//	source      u8 length, bytes: the caller's ServerID, for the log
type preamble struct {
	cluster     shardcfg.ClusterID
	incarnation shardcfg.Incarnation
	target      string
	source      string
}

const (
	preambleMagic   = "\xf5SRG"
	preambleVersion = 1
)

// append encodes p. Server ids are at most 255 bytes long (formation bounds
// them well below).
func (p preamble) append(b []byte) []byte {
	b = append(b, preambleMagic...)
	b = append(b, preambleVersion)
	b = append(b, p.cluster[:]...)
	b = append(b, p.incarnation[:]...)
	b = append(append(b, byte(len(p.target))), p.target...)
	return append(append(b, byte(len(p.source))), p.source...)
}

// readPreamble reads what follows the magic.
func readPreamble(r io.Reader) (preamble, error) {
	var p preamble
	var version [1]byte
	if _, err := io.ReadFull(r, version[:]); err != nil {
		return p, fmt.Errorf("read preamble: %w", err)
	}
	if version[0] != preambleVersion {
		return p, fmt.Errorf("preamble of version %d, this is version %d", version[0], preambleVersion)
	}
	for _, id := range []*[16]byte{(*[16]byte)(&p.cluster), (*[16]byte)(&p.incarnation)} {
		if _, err := io.ReadFull(r, id[:]); err != nil {
			return p, fmt.Errorf("read preamble: %w", err)
		}
	}
	for _, name := range []*string{&p.target, &p.source} {
		var length [1]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return p, fmt.Errorf("read preamble: %w", err)
		}
		b := make([]byte, length[0])
		if _, err := io.ReadFull(r, b); err != nil {
			return p, fmt.Errorf("read preamble: %w", err)
		}
		*name = string(b)
	}
	return p, nil
}
