package raftgroup

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// The commands of logMachine.
const (
	kindSet  = entry.KindMachineMin     // body "key=value"
	kindFail = entry.KindMachineMin + 1 // the machine fails
)

// A logMachine keeps "key=value" commands as keys, with the sequence number of
// the command as its result, and remembers what it was given.
type logMachine struct {
	mu sync.Mutex
	// last is a cache, as real machines have them: Reset must forget it.
	last   uint64
	clocks []uint64
	resets int
	// perEntry counts the commands of each entry that reached the machine.
	perEntry []int
	gate     chan struct{} // if set, Apply waits for it
}

var keyCount = []byte("\x00count")

func (m *logMachine) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	m.mu.Lock()
	gate := m.gate
	m.mu.Unlock()
	if gate != nil {
		<-gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clocks = append(m.clocks, e.Clock)
	m.perEntry = append(m.perEntry, len(e.Commands))
	results := make([]any, len(e.Commands))
	for i, c := range e.Commands {
		if c.Kind != kindSet {
			return nil, fmt.Errorf("unknown kind %d", c.Kind)
		}
		key, value, _ := bytes.Cut(c.Body, []byte("="))
		if err := b.Set(append([]byte("k"), key...), value); err != nil {
			return nil, err
		}
		m.last++
		results[i] = m.last
	}
	return results, b.Set(keyCount, binary.BigEndian.AppendUint64(nil, m.last))
}

func (m *logMachine) Reset(r store.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = 0
	m.resets++
	b, ok, err := r.Get(keyCount)
	if err == nil && ok {
		m.last = binary.BigEndian.Uint64(b)
	}
	return err
}

func (m *logMachine) Applied(uint64) {}

func (m *logMachine) setGate(gate chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate = gate
}

func (m *logMachine) seen() (clocks []uint64, perEntry []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]uint64(nil), m.clocks...), append([]int(nil), m.perEntry...)
}

func set(format string, args ...any) entry.Command {
	return entry.Command{Kind: kindSet, Body: fmt.Appendf(nil, format, args...)}
}

func valueOf(s store.Reader, key string) string {
	b, ok, err := s.Get([]byte("k" + key))
	if err != nil {
		return "error " + err.Error()
	}
	if !ok {
		return "absent"
	}
	return string(b)
}
