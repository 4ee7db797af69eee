package logstore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// memory is the backend of KindMemory.
type memory struct {
	mu struct {
		sync.Mutex
		logs        map[uint64]raft.Log
		first, last uint64 // 0: no entries
		values      map[string][]byte
		closed      bool
	}
}

func newMemory() *memory {
	m := &memory{}
	m.mu.logs = map[uint64]raft.Log{}
	m.mu.values = map[string][]byte{}
	return m
}

// clone is what a crash now would leave behind: every write is durable at once.
func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := newMemory()
	n.mu.logs, n.mu.values = maps.Clone(m.mu.logs), maps.Clone(m.mu.values)
	n.mu.first, n.mu.last = m.mu.first, m.mu.last
	return n
}

func (m *memory) FirstIndex() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.first, m.openLocked()
}

func (m *memory) LastIndex() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.last, m.openLocked()
}

func (m *memory) GetLog(index uint64, log *raft.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.openLocked(); err != nil {
		return err
	}
	stored, ok := m.mu.logs[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*log = copyLog(&stored)
	return nil
}

func (m *memory) StoreLog(log *raft.Log) error { return m.StoreLogs([]*raft.Log{log}) }

func (m *memory) StoreLogs(logs []*raft.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.openLocked(); err != nil {
		return err
	}
	for _, log := range logs {
		m.mu.logs[log.Index] = copyLog(log)
		if m.mu.first == 0 || log.Index < m.mu.first {
			m.mu.first = log.Index
		}
		m.mu.last = max(m.mu.last, log.Index)
	}
	return nil
}

func (m *memory) DeleteRange(lo, hi uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.openLocked(); err != nil {
		return err
	}
	for i := max(lo, m.mu.first); i <= min(hi, m.mu.last) && i != 0; i++ {
		delete(m.mu.logs, i)
	}
	// The log may have gaps, so the ends are found again, not computed.
	m.mu.first, m.mu.last = 0, 0
	if len(m.mu.logs) > 0 {
		left := slices.Collect(maps.Keys(m.mu.logs))
		m.mu.first, m.mu.last = slices.Min(left), slices.Max(left)
	}
	return nil
}

func (m *memory) Set(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.openLocked(); err != nil {
		return err
	}
	m.mu.values[string(key)] = bytes.Clone(value)
	return nil
}

func (m *memory) Get(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.openLocked(); err != nil {
		return nil, err
	}
	value, ok := m.mu.values[string(key)]
	if !ok {
		return nil, ErrNotFound
	}
	return bytes.Clone(value), nil
}

func (m *memory) SetUint64(key []byte, value uint64) error {
	return m.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (m *memory) GetUint64(key []byte) (uint64, error) {
	value, err := m.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: %q is no number", ErrCorrupt, key)
	}
	return binary.BigEndian.Uint64(value), nil
}

func (m *memory) SizeBytes() (int64, error) { return 0, nil }

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.closed = true
	return nil
}

func (m *memory) openLocked() error {
	if m.mu.closed {
		return ErrClosed
	}
	return nil
}

func copyLog(log *raft.Log) raft.Log {
	c := *log
	c.Data, c.Extensions = bytes.Clone(log.Data), bytes.Clone(log.Extensions)
	return c
}
