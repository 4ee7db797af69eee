package kvfsm

import (
	"encoding/binary"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// write decides in the order that the promises need: is the shard held; is the
// write fresh, a repeat, or stale; does the condition hold; only then act.
//
// A refusal (family "not done") leaves no trace, so that the same attempt may
// succeed elsewhere or later. What was executed is remembered by the session,
// also where it changed no key (a version mismatch, a delete of nothing): the
// client may have been told, or may be told by a repeat, and a second execution
// could end differently. Such a memory is a change of the shard and takes a
// revision, or the handoff's tail would miss it.
func (m *Machine) write(w *Write) (Outcome, error) {
	if why := w.check(); why != ReasonNone {
		return Outcome{Code: CodeInvalid, Why: why}, nil
	}
	s := shardcfg.ShardOf(w.Key, len(m.shards))
	sh := m.shards[s]
	if sh == nil || !sh.rec.Phase.Serves() {
		return Outcome{Code: CodeWrongGroup, Where: m.where(s)}, nil
	}
	if m.open.full() {
		return Outcome{Code: CodeBusy, Why: ReasonEntryFull}, nil
	}
	var ses *openSession
	if w.Stamp.Sequence != 0 {
		out, s, err := m.recognise(sh, w.Stamp)
		if s == nil || err != nil {
			return out, err
		}
		ses = s
	}
	out, err := m.execute(sh, w, ses != nil)
	if err != nil || !out.Code.Done() || ses == nil {
		return out, err
	}
	ses.rec.Remember(session.Result{
		Sequence: w.Stamp.Sequence, Code: uint8(out.Code), Version: out.Version, Length: out.Length,
	}, w.Stamp.AckedBelow)
	ses.changed = sh.rec.Revision
	return out, nil
}

// recognise returns the session of a fresh write, or nil and the outcome.
func (m *Machine) recognise(sh *shard, stamp session.Stamp) (Outcome, *openSession, error) {
	floor, err := m.floor(sh)
	if err != nil {
		return Outcome{}, nil, err
	}
	switch session.Admit(stamp.Key.Birth, floor, m.clock, m.cfg.SessionAheadMax) {
	case session.Expired:
		return Outcome{Code: CodeSessionExpired, Floor: floor}, nil, nil
	case session.Ahead:
		return Outcome{Code: CodeSessionAhead}, nil, nil
	}
	ses, err := m.openSession(sh, stamp.Key)
	if err != nil {
		return Outcome{}, nil, err
	}
	res, standing := ses.rec.Judge(stamp, m.cfg.SessionResultsMax)
	switch standing {
	case session.Repeat:
		return outcomeOf(res), nil, nil
	case session.Stale:
		return Outcome{Code: CodeStaleSequence}, nil, nil
	case session.Full:
		return Outcome{Code: CodeBusy, Why: ReasonSessionFull}, nil, nil
	}
	return Outcome{}, ses, nil
}

// execute checks the condition and acts. remembered says that a session will
// remember the outcome.
func (m *Machine) execute(sh *shard, w *Write, remembered bool) (Outcome, error) {
	r, err := m.openRecord(sh, w.Key)
	if err != nil {
		return Outcome{}, err
	}
	mismatch := w.Condition.Set && w.Condition.Version != r.version
	if mismatch || (w.Op == OpDelete && !r.exists) {
		if remembered {
			sh.rec.Revision++
			m.touch(sh)
		}
		if mismatch {
			return Outcome{Code: CodeVersionMismatch, Version: r.version}, nil
		}
		return Outcome{Code: CodeNotFound}, nil
	}
	length := r.length() + len(w.Value)
	if w.Op == OpAppend && length > shardcfg.ValueBytesMax {
		return Outcome{Code: CodeInvalid, Version: r.version, Why: ReasonValueSize}, nil
	}
	sh.rec.Revision++
	m.touch(sh)
	switch w.Op {
	case OpDelete:
		sh.rec.RemovalRevision = sh.rec.Revision
		m.removeRecord(r)
		return Outcome{Code: CodeOK}, nil
	case OpAppend:
		m.appendToRecord(r, w.Value)
		return Outcome{Code: CodeOK, Version: sh.rec.Revision, Length: uint64(length)}, nil
	}
	m.putRecord(r, w.Value)
	return Outcome{Code: CodeOK, Version: sh.rec.Revision}, nil
}

// where says what is known of a shard that is not served, by the record, else
// by the adopted config.
func (m *Machine) where(s shardcfg.ShardID) Where {
	w := Where{Shard: s}
	if sh := m.shards[s]; sh != nil {
		w = sh.rec.where()
	}
	if w.Next.IsZero() {
		if owner := m.owner(s); owner != m.self {
			w.Next = owner
		}
	}
	return w
}

// owner returns the group that should hold s by the adopted config; zero if
// there is none, or it is not bound to an incarnation yet.
func (m *Machine) owner(s shardcfg.ShardID) Peer {
	if m.adopted == nil {
		return Peer{}
	}
	gid, inc := m.adopted.Owner(s)
	if inc.IsZero() {
		return Peer{}
	}
	return Peer{Incarnation: inc, Group: gid}
}

// floor returns the shard's session floor.
func (m *Machine) floor(sh *shard) (uint64, error) {
	if !sh.floorKnown {
		floor, err := ReadFloor(m.batch, &sh.rec)
		if err != nil {
			return 0, err
		}
		sh.floor, sh.floorKnown = floor, true
	}
	return sh.floor, nil
}

// raiseFloor: the shard is held; the floor rises, and not beyond the clock.
func (m *Machine) raiseFloor(sh *shard, c *RaiseFloor) (Verdict, error) {
	if !sh.rec.Phase.Serves() {
		return refuse(ReasonPhase), nil
	}
	floor, err := m.floor(sh)
	if err != nil {
		return Verdict{}, err
	}
	if c.Floor <= floor || c.Floor > m.clock {
		return refuse(ReasonFloor), nil
	}
	return done, m.setFloor(sh, floor, c.Floor)
}

// setFloor replaces the session floor of a held copy, as a change of the shard.
func (m *Machine) setFloor(sh *shard, was, floor uint64) error {
	var old []byte
	if was != 0 {
		old = binary.BigEndian.AppendUint64(nil, was)
	}
	sh.rec.Revision++
	sh.floor, sh.floorKnown = floor, true
	return m.put(sh, metaFloor, old, binary.BigEndian.AppendUint64(nil, floor), sh.rec.Revision)
}

// expireSessions lets every session be too old that may have been used before now:
// what they wrote last may have been executed by a group that was destroyed, and be
// known to nobody any more, so that a retry must not execute it again. A session may
// have been born ahead of the clock, and of a floor that is ahead of it (see
// session.Admit).
func (m *Machine) expireSessions(sh *shard) error {
	floor, err := m.floor(sh)
	if err != nil {
		return err
	}
	return m.setFloor(sh, floor, max(floor, m.clock)+m.cfg.SessionAheadMax)
}

// prune: the shard is held; only sessions below the floor go, which can't be
// told from new ones any more but are refused for their birth.
func (m *Machine) prune(sh *shard, c *Prune) (Verdict, error) {
	if !sh.rec.Phase.Serves() {
		return refuse(ReasonPhase), nil
	}
	floor, err := m.floor(sh)
	if err != nil {
		return Verdict{}, err
	}
	held := sh.rec.held()
	it, err := m.batch.Iterate(held.at(kindSession), held.at(kindSession, binary.BigEndian.AppendUint64(nil, floor)...))
	if err != nil {
		return Verdict{}, err
	}
	var gone []Item // an iterator of a batch may not outlive a write
	for uint64(len(gone)) < uint64(c.Max) && !m.open.full() && it.Next() {
		m.open.effects += len(it.Value())
		gone = append(gone, Item{
			Key:   append([]byte(nil), it.Key()[copyPrefixBytes:]...),
			Value: append([]byte(nil), it.Value()...),
		})
	}
	if err := it.Close(); err != nil {
		return Verdict{}, err
	}
	for _, item := range gone {
		// One revision each: the tail of changes can be cut between any two.
		sh.rec.Revision++
		if err := m.remove(sh, item.Key, item.Value, sh.rec.Revision); err != nil {
			return Verdict{}, err
		}
	}
	return Verdict{Done: len(gone) > 0, Count: len(gone)}, nil
}
