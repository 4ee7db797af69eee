package kvfsm

import (
	"encoding/binary"
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// An openState is what an entry has read and may have changed, and did not write
// yet: each record and each session is read once and written once, however many
// commands of the entry concern it. Written at once, 512 appends of a byte to one
// value of 4 MiB would be 2 GiB in the batch.
type openState struct {
	records  map[string]*openRecord // by stored key
	sessions map[sessionRef]*openSession
	// recordOrder and sessionOrder are theirs by first use. The elements of
	// recordOrder behind its length are used again.
	recordOrder  []*openRecord
	sessionOrder []*openSession
	// effects counts the bytes that the entry has read of the store, and those that
	// it will write.
	effects int
}

func newOpenState() openState {
	return openState{records: map[string]*openRecord{}, sessions: map[sessionRef]*openSession{}}
}

// full reports whether the entry has had as many effects as one may. What comes
// then is refused: it is proposed again, in another entry. So an entry is bounded
// in memory, in time and in what it adds to a batch, whatever its commands are,
// and the same on all replicas: all of it follows from the entry and the state.
func (o *openState) full() bool { return o.effects >= shardcfg.EffectBytesMax }

// An openRecord is the record of a key while an entry is applied.
type openRecord struct {
	sh   *shard
	item []byte // its item key
	// exists says that there is a record. version is its version. value is the
	// stored value with its header, where the version is that of the store; or, if
	// put is set, the entry put operand there.
	exists  bool
	version shardcfg.Revision
	value   []byte
	operand []byte // aliases the entry
	put     bool
	// changed is the revision of the last change; 0: none.
	changed shardcfg.Revision
}

// length is that of the user's value.
func (r *openRecord) length() int {
	switch {
	case !r.exists:
		return 0
	case r.put:
		return len(r.operand)
	}
	return len(r.value) - valueHeaderBytes
}

// openRecord returns a key's record, read at most once for an entry.
func (m *Machine) openRecord(sh *shard, key []byte) (*openRecord, error) {
	m.scratch.key = itemRecord(sh.rec.held().prefix(m.scratch.key[:0]), key)
	if r, ok := m.open.records[string(m.scratch.key)]; ok {
		return r, nil
	}
	b, ok, err := m.batch.Get(m.scratch.key)
	if err != nil {
		return nil, err
	}
	r := m.open.nextRecord()
	*r = openRecord{sh: sh, item: append(r.item[:0], m.scratch.key[copyPrefixBytes:]...), exists: ok, value: b}
	if ok {
		if r.version, _, err = parseValue(b); err != nil {
			return nil, err
		}
		m.open.effects += len(b)
	}
	m.open.records[string(m.scratch.key)] = r
	return r, nil
}

func (o *openState) nextRecord() *openRecord {
	n := len(o.recordOrder)
	if n < cap(o.recordOrder) {
		if o.recordOrder = o.recordOrder[:n+1]; o.recordOrder[n] != nil {
			return o.recordOrder[n]
		}
		o.recordOrder = o.recordOrder[:n]
	}
	o.recordOrder = append(o.recordOrder, &openRecord{})
	return o.recordOrder[n]
}

// changeRecord notes that a record changes at the shard's revision, before it
// does. What is stored stops counting; what is there in the end is counted when it
// is written.
func (m *Machine) changeRecord(r *openRecord) {
	if r.changed == 0 && r.exists {
		m.hasher.remove(&r.sh.rec.Content, r.item, r.value)
	}
	r.changed = r.sh.rec.Revision
}

// putRecord makes value, which aliases the entry, the record's.
func (m *Machine) putRecord(r *openRecord, value []byte) {
	m.changeRecord(r)
	m.open.effects += len(value)
	r.exists, r.version, r.put = true, r.changed, true
	r.operand, r.value = value, nil
}

// appendToRecord appends value to the record's.
func (m *Machine) appendToRecord(r *openRecord, value []byte) {
	first := r.changed == 0 || r.put || !r.exists
	m.changeRecord(r)
	switch {
	case !r.exists:
		r.value = appendValueHeader(make([]byte, 0, valueHeaderBytes+len(value)), 0)
	case r.put:
		r.value = append(appendValueHeader(make([]byte, 0, valueHeaderBytes+len(r.operand)+len(value)), 0), r.operand...)
	}
	r.exists, r.version, r.put, r.operand = true, r.changed, false, nil
	r.value = append(r.value, value...)
	if m.open.effects += len(value); first {
		m.open.effects += len(r.value)
	}
}

// removeRecord removes the record.
func (m *Machine) removeRecord(r *openRecord) {
	m.changeRecord(r)
	r.exists, r.version, r.put, r.operand, r.value = false, 0, false, nil, nil
}

// flushOpen writes the records and the sessions that changed, each once, and
// forgets them all.
func (m *Machine) flushOpen() error {
	for _, r := range m.open.recordOrder {
		if err := m.flushRecord(r); err != nil {
			return err
		}
		r.sh, r.value, r.operand = nil, nil, nil
	}
	for _, s := range m.open.sessionOrder {
		if err := m.flushSession(s); err != nil {
			return err
		}
	}
	clear(m.open.records)
	clear(m.open.sessions)
	clear(m.open.sessionOrder)
	m.open.recordOrder, m.open.sessionOrder = m.open.recordOrder[:0], m.open.sessionOrder[:0]
	if cap(m.open.recordOrder) > openRecordsKept {
		m.open.recordOrder = nil
	}
	return nil
}

// openRecordsKept bounds what is kept between entries: no more than an entry of
// this version has commands.
const openRecordsKept = 1024

func (m *Machine) flushRecord(r *openRecord) error {
	if r.changed == 0 {
		return nil
	}
	m.scratch.key = r.sh.rec.held().key(m.scratch.key[:0], r.item)
	if !r.exists {
		if err := m.batch.Delete(m.scratch.key); err != nil {
			return err
		}
		return m.logChange(r.sh, r.item, 0, r.changed)
	}
	value := r.value
	if r.put {
		value = append(appendValueHeader(m.scratch.value[:0], r.version), r.operand...)
		m.scratch.value = value
	} else {
		setValueVersion(value, r.version)
	}
	m.hasher.add(&r.sh.rec.Content, r.item, value)
	if err := m.batch.Set(m.scratch.key, value); err != nil {
		return err
	}
	if cap(m.scratch.value) > scratchBytesMax {
		m.scratch.value = nil
	}
	return m.logChange(r.sh, r.item, len(value), r.changed)
}

// scratchBytesMax bounds the buffer that is kept between records.
const scratchBytesMax = 64 << 10

// sessionRef names a session's record.
type sessionRef struct {
	shard shardcfg.ShardID
	key   session.Key
}

// openSession is a session's record while an entry is applied.
type openSession struct {
	sh  *shard
	key session.Key
	rec session.Record
	// stored is what the store holds; nil: nothing.
	stored []byte
	// changed is the revision of the last change; 0: none.
	changed shardcfg.Revision
}

// openSession returns a session's record, read at most once for an entry.
func (m *Machine) openSession(sh *shard, key session.Key) (*openSession, error) {
	ref := sessionRef{sh.rec.Shard, key}
	if s, ok := m.open.sessions[ref]; ok {
		return s, nil
	}
	s := &openSession{sh: sh, key: key}
	m.scratch.item = key.Append(append(m.scratch.item[:0], kindSession))
	m.scratch.key = sh.rec.held().key(m.scratch.key[:0], m.scratch.item)
	b, ok, err := m.batch.Get(m.scratch.key)
	if err != nil {
		return nil, err
	}
	if ok {
		s.stored = b
		if s.rec, err = session.Decode(b); err != nil {
			return nil, fmt.Errorf("%w: shard %d session %v: %w", ErrState, sh.rec.Shard, key.ID, err)
		}
		m.open.effects += 2 * len(b) // it will be written again
	}
	m.open.sessions[ref] = s
	m.open.sessionOrder = append(m.open.sessionOrder, s)
	return s, nil
}

func (m *Machine) flushSession(s *openSession) error {
	if s.changed == 0 {
		return nil
	}
	item := s.key.Append(append(m.scratch.item[:0], kindSession))
	m.scratch.item = item
	m.scratch.value = s.rec.Append(m.scratch.value[:0])
	return m.put(s.sh, item, s.stored, m.scratch.value, s.changed)
}

// setValueVersion changes the version in a stored value.
func setValueVersion(stored []byte, version shardcfg.Revision) {
	binary.BigEndian.PutUint64(stored[3:], uint64(version))
}
