package kvfsm

import (
	"bytes"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Scan asks for one page of a shard's keys, in their order.
type Scan struct {
	Shard  shardcfg.ShardID
	Prefix []byte
	// After is the key to go on behind; empty: from the start.
	After []byte
	// KeysMax and BytesMax bound the page: its entries, and the bytes of their
	// keys and values, of those too that KeysOnly leaves out, for they are read all
	// the same. Both must be positive; the first entry is returned whatever its
	// size.
	KeysMax  int
	BytesMax int
	KeysOnly bool
}

// A ScanEntry is one key of a page.
type ScanEntry struct {
	Key, Value []byte
	Version    shardcfg.Revision
}

// A ScanPage is part of one shard at one moment.
type ScanPage struct {
	Code    Code // CodeOK or CodeWrongGroup
	Where   Where
	Entries []ScanEntry
	// Bytes are those that were read for the entries.
	Bytes int
	// End says that no key with the prefix is above the last entry.
	End bool
}

// ReadScan reads one page. r must be a snapshot taken after a read barrier.
func ReadScan(r store.Reader, q Scan) (ScanPage, error) {
	rec, err := ReadRecord(r, q.Shard)
	if err != nil {
		return ScanPage{}, err
	}
	if !rec.Phase.Serves() {
		return ScanPage{Code: CodeWrongGroup, Where: rec.where()}, nil
	}
	return ScanHeld(r, &rec, q)
}

// ScanHeld reads one page of the copy that a shard's record names, in whatever
// phase: for who reads what a group left behind. q's shard is not looked at.
func ScanHeld(r store.Reader, rec *Record, q Scan) (ScanPage, error) {
	held := rec.held()
	lower := held.at(kindRecord, q.Prefix...)
	upper := store.PrefixEnd(lower)
	if len(q.After) > 0 && bytes.Compare(q.After, q.Prefix) >= 0 {
		lower = append(held.at(kindRecord, q.After...), 0)
	}
	if bytes.Compare(lower, upper) >= 0 {
		return ScanPage{End: true}, nil
	}
	it, err := r.Iterate(lower, upper)
	if err != nil {
		return ScanPage{}, err
	}
	page := ScanPage{End: true}
	for it.Next() {
		key := it.Key()[copyPrefixBytes+1:]
		if len(page.Entries) > 0 && (len(page.Entries) >= q.KeysMax || page.Bytes+len(key) > q.BytesMax) {
			page.End = false
			break
		}
		stored := it.Value()
		version, value, err := parseValue(stored)
		if err != nil {
			it.Close()
			return ScanPage{}, err
		}
		if page.Bytes += len(key) + len(value); len(page.Entries) > 0 && page.Bytes > q.BytesMax {
			page.Bytes -= len(key) + len(value)
			page.End = false
			break
		}
		e := ScanEntry{Key: bytes.Clone(key), Version: version}
		if !q.KeysOnly {
			e.Value = append([]byte{}, value...)
		}
		page.Entries = append(page.Entries, e)
	}
	return page, it.Close()
}
