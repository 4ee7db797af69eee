package kvfsm

import (
	"encoding/binary"
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const recordFormat = 1

// appendRecord appends the encoding of r, without its shard:
//
//	format u8 1, phase u8, epoch, handoff uvarint, to peer, start uvarint,
//	copy uvarint, copy last uvarint, revision uvarint, removal revision uvarint,
//	content, staging u8 (0 or 1), and if 1:
//	epoch, handoff uvarint, from peer, cursor, copy uvarint, content
//
//	epoch   { gen uvarint, num uvarint }
//	peer    { incarnation [16]byte, gid uvarint }
//	content { keys uvarint, bytes uvarint, digest [16]byte }
//	cursor  { tail u8, length uvarint, key, revision uvarint }
func appendRecord(dst []byte, r *Record) []byte {
	dst = append(dst, recordFormat, byte(r.Phase))
	dst = appendEpoch(dst, r.Epoch)
	dst = binary.AppendUvarint(dst, uint64(r.Handoff))
	dst = appendPeer(dst, r.To)
	dst = binary.AppendUvarint(dst, uint64(r.Start))
	dst = binary.AppendUvarint(dst, r.Copy)
	dst = binary.AppendUvarint(dst, r.CopyLast)
	dst = binary.AppendUvarint(dst, uint64(r.Revision))
	dst = binary.AppendUvarint(dst, uint64(r.RemovalRevision))
	dst = appendContent(dst, r.Content)
	if r.Staging == nil {
		return append(dst, 0)
	}
	st := r.Staging
	dst = append(dst, 1)
	dst = appendEpoch(dst, st.Epoch)
	dst = binary.AppendUvarint(dst, uint64(st.Handoff))
	dst = appendPeer(dst, st.From)
	dst = appendCursor(dst, st.Cursor)
	dst = binary.AppendUvarint(dst, st.Copy)
	return appendContent(dst, st.Content)
}

func parseRecord(s shardcfg.ShardID, b []byte) (Record, error) {
	if len(b) == 0 || b[0] != recordFormat {
		return Record{}, fmt.Errorf("%w: record of shard %d: format % x", ErrState, s, b[:min(len(b), 1)])
	}
	d := decoder{b: b[1:]}
	r := Record{Shard: s, Phase: Phase(d.byteMax(byte(PhasePassed)))}
	r.Epoch = d.epoch()
	r.Handoff = shardcfg.ConfigNum(d.uvarint())
	r.To = d.peer()
	r.Start = shardcfg.Revision(d.uvarint())
	r.Copy = d.uvarint()
	r.CopyLast = d.uvarint()
	r.Revision = shardcfg.Revision(d.uvarint())
	r.RemovalRevision = shardcfg.Revision(d.uvarint())
	r.Content = d.content()
	if d.byteMax(1) == 1 {
		st := &Staging{Epoch: d.epoch(), Handoff: shardcfg.ConfigNum(d.uvarint())}
		st.From = d.peer()
		st.Cursor = d.cursor()
		st.Copy = d.uvarint()
		st.Content = d.content()
		r.Staging = st
	}
	if err := d.finish(); err != nil {
		return Record{}, fmt.Errorf("%w: record of shard %d: %d bytes", ErrState, s, len(b))
	}
	return r, nil
}
