package logstore

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// memory is the backend of KindMemory.
type memory struct {
	mu struct {
		sync.Mutex
		logs   map[uint64]raft.Log
		closed bool
	}
}

func newMemory() *memory {
	m := &memory{}
	m.mu.logs = map[uint64]raft.Log{}
	return m
}

// clone is what a crash now would leave behind: every write is durable at once.
func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := newMemory()
	n.mu.logs = maps.Clone(m.mu.logs)
	return n
}

func (m *memory) Indexes() ([]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.mu.logs)), m.openLocked()
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

func (m *memory) StoreLogs(logs []*raft.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.openLocked(); err != nil {
		return err
	}
	for _, log := range logs {
		m.mu.logs[log.Index] = copyLog(log)
	}
	return nil
}

func (m *memory) DeleteRange(lo, hi uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.openLocked(); err != nil {
		return err
	}
	maps.DeleteFunc(m.mu.logs, func(i uint64, _ raft.Log) bool { return lo <= i && i <= hi })
	return nil
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
