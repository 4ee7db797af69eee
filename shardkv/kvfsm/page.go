package kvfsm

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Want asks a holder for the next page of one shard.
type Want struct {
	Shard shardcfg.ShardID
	// Mark is the holder's (e, h) that the receiver is staging.
	Mark
	Cursor Cursor
}

// A Page is a holder's reply to a Want.
type Page struct {
	Shard shardcfg.ShardID
	// NotYours says that the holder does not stand Leaving or Frozen at exactly
	// the wanted (e, h) towards the asker. Then only Mark and Phase are set.
	NotYours bool
	// Mark and Phase are the holder's.
	Mark
	Phase Phase

	Items []Item
	// Next is the cursor behind this page.
	Next Cursor
	// Last says that the holder is Frozen and these are all remaining changes:
	// install them. Summary is what the shard must be then.
	Last    bool
	Summary Summary
	// TotalBytes is the shard's size at the holder, for progress.
	TotalBytes uint64
}

// itemOverheadBytes is what an item is counted as beyond its key and value.
const itemOverheadBytes = 16

func (it *Item) size() int { return itemOverheadBytes + len(it.Key) + len(it.Value) }

// Bytes is what the page is counted as, against a bound of ReadPages and others.
func (p *Page) Bytes() (n int) {
	for i := range p.Items {
		n += p.Items[i].size()
	}
	return n
}

// ReadPages answers a receiver's wants from a snapshot of any replica of the
// holder, leader or not, for as many of them, from the first on, as fit into
// bytesMax; at least one. A change larger than that travels alone.
//
// No barrier and no leader are needed: a lagging replica that stands at exactly
// (e, h, to) sends less, never something wrong. During the copy the tail's
// start does not move, so that whatever changes behind the copy's back is in
// the tail; in the tail, what changed up to the cursor is in.
func ReadPages(r store.Reader, to shardcfg.Incarnation, wants []Want, bytesMax int) ([]Page, error) {
	var pages []Page
	for i, w := range wants {
		if i > 0 && bytesMax <= 0 {
			break
		}
		p, err := ReadPage(r, to, w, bytesMax)
		if err != nil {
			return nil, err
		}
		bytesMax -= p.Bytes()
		pages = append(pages, p)
	}
	return pages, nil
}

// ReadPage answers one want; see ReadPages.
func ReadPage(r store.Reader, to shardcfg.Incarnation, w Want, bytesMax int) (Page, error) {
	rec, err := ReadRecord(r, w.Shard)
	if err != nil {
		return Page{}, err
	}
	p := Page{Shard: w.Shard, Mark: rec.Mark(), Phase: rec.Phase}
	if (rec.Phase != PhaseLeaving && rec.Phase != PhaseFrozen) || rec.Mark() != w.Mark || rec.To.Incarnation != to {
		p.NotYours = true
		return p, nil
	}
	p.TotalBytes = rec.Bytes
	if w.Cursor.Tail {
		err = readTail(r, &rec, w.Cursor, bytesMax, &p)
	} else {
		err = readCopy(r, &rec, w.Cursor, bytesMax, &p)
	}
	return p, err
}

// readCopy adds the items behind the cursor, in the order of their keys.
func readCopy(r store.Reader, rec *Record, from Cursor, bytesMax int, p *Page) error {
	held := rec.held()
	lower, upper := held.itemBounds()
	if len(from.Key) > 0 {
		lower = append(held.key(nil, from.Key), 0)
	}
	if bytes.Compare(lower, upper) >= 0 {
		return fmt.Errorf("%w: a copy's cursor beyond the items", ErrRequest)
	}
	it, err := r.Iterate(lower, upper)
	if err != nil {
		return err
	}
	size := 0
	for it.Next() {
		item := Item{Key: bytes.Clone(it.Key()[copyPrefixBytes:]), Value: append([]byte{}, it.Value()...)}
		size += item.size()
		if len(p.Items) > 0 && size > bytesMax {
			p.Next = Cursor{Key: p.Items[len(p.Items)-1].Key}
			return it.Close()
		}
		p.Items = append(p.Items, item)
	}
	p.Next = Cursor{Tail: true, Revision: rec.Start}
	return it.Close()
}

// readTail adds the items last changed behind the cursor, with their present
// values. A page ends between two revisions: half of one would lose the other
// half, as the cursor can't say where it stopped. So it may be as large as what
// one revision changes, a record and a session (shardcfg.ChangeBytesMax), and no
// larger: what does not fit beside others begins the next page.
func readTail(r store.Reader, rec *Record, from Cursor, bytesMax int, p *Page) error {
	held := rec.held()
	it, err := r.Iterate(held.logByRevision(nil, from.Revision+1, nil), held.at(kindLogByRevision+1))
	if err != nil {
		return err
	}
	var (
		size int
		last = from.Revision // the revision of the item before
		// whole is how many items there are up to the end of the revision before.
		whole int
		end   shardcfg.Revision
	)
	for it.Next() {
		rev, item, _, err := parseLog(it.Key()[copyPrefixBytes:], it.Value())
		if err == nil {
			err = readItem(r, held, &item)
		}
		if err != nil {
			it.Close()
			return err
		}
		if rev != last {
			whole, end, last = len(p.Items), last, rev
		}
		if size += item.size(); whole > 0 && size > bytesMax {
			p.Items, p.Next = p.Items[:whole], Cursor{Tail: true, Revision: end}
			return it.Close()
		}
		p.Items = append(p.Items, item)
	}
	// A replica that lags behind the cursor must not move it back.
	p.Next = Cursor{Tail: true, Revision: max(from.Revision, rec.Revision)}
	if rec.Phase == PhaseFrozen {
		p.Last, p.Summary = true, rec.Summary()
	}
	return it.Close()
}

// readItem fills in an item's present value.
func readItem(r store.Reader, held copyID, item *Item) error {
	value, ok, err := r.Get(held.key(nil, item.Key))
	if err != nil {
		return err
	}
	item.Value, item.Deleted = value, !ok
	return nil
}

// parseLog reads an entry of the change log by revision. The item's key is a
// copy.
func parseLog(key, value []byte) (shardcfg.Revision, Item, uint64, error) {
	size, n := binary.Uvarint(value)
	if len(key) < 1+8+1 || n != len(value) {
		return 0, Item{}, 0, fmt.Errorf("%w: change log entry % x", ErrState, key)
	}
	return shardcfg.Revision(binary.BigEndian.Uint64(key[1:])), Item{Key: bytes.Clone(key[9:])}, size, nil
}

// ReadTailSize counts the changes behind a revision in the change log of a
// shard that is leaving, and the bytes that they would travel as; it stops
// counting at changesMax.
func ReadTailSize(r store.Reader, rec *Record, after shardcfg.Revision, changesMax int) (changes int, size uint64, err error) {
	held := rec.held()
	it, err := r.Iterate(held.logByRevision(nil, after+1, nil), held.at(kindLogByRevision+1))
	if err != nil {
		return 0, 0, err
	}
	for changes < changesMax && it.Next() {
		_, _, n, err := parseLog(it.Key()[copyPrefixBytes:], it.Value())
		if err != nil {
			it.Close()
			return 0, 0, err
		}
		changes++
		size += n
	}
	return changes, size, it.Close()
}
