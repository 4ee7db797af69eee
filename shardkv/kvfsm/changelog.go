package kvfsm

import (
	"encoding/binary"
	"fmt"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// logChange notes, while the shard is leaving, that an item changed at rev. The
// log names each item once, at its last change, so that it is bounded by the
// shard's keys however long the handoff waits.
func (m *Machine) logChange(sh *shard, item []byte, valueBytes int, rev shardcfg.Revision) error {
	if sh.rec.Phase != PhaseLeaving {
		return nil
	}
	held := sh.rec.held()
	byKey := held.logByKey(m.scratch.log[:0], item)
	m.scratch.log = byKey
	b, ok, err := m.batch.Get(byKey)
	if err != nil {
		return err
	}
	if ok {
		if len(b) != 8 {
			return fmt.Errorf("%w: change log entry of %d bytes", ErrState, len(b))
		}
		last := shardcfg.Revision(binary.BigEndian.Uint64(b))
		m.scratch.key = held.logByRevision(m.scratch.key[:0], last, item)
		if err := m.batch.Delete(m.scratch.key); err != nil {
			return err
		}
	}
	var num [binary.MaxVarintLen64]byte
	binary.BigEndian.PutUint64(num[:], uint64(rev))
	if err := m.batch.Set(byKey, num[:8]); err != nil {
		return err
	}
	n := binary.PutUvarint(num[:], uint64(itemOverheadBytes+len(item)+valueBytes))
	m.scratch.key = held.logByRevision(m.scratch.key[:0], rev, item)
	return m.batch.Set(m.scratch.key, num[:n])
}

// clearLog ends a change log, when the handoff ends or gets another receiver.
func (m *Machine) clearLog(sh *shard) error {
	if sh.rec.Revision == sh.rec.Start {
		return nil // nothing changed since it began
	}
	return m.batch.DeleteRange(sh.rec.held().logBounds())
}

// deleteCopy deletes a copy with its change log. Its number is never used
// again.
func (m *Machine) deleteCopy(c copyID) error {
	if c.n == 0 {
		return nil
	}
	return m.batch.DeleteRange(c.bounds())
}
