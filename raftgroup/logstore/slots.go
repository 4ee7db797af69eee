package logstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// A disk is what the store's files are made durable with.
type disk struct {
	noSync bool
	// synced, if set, hears of each file and directory that was made durable.
	synced func(path string)
}

func (d disk) sync(f *os.File) error {
	if d.noSync {
		return nil
	}
	if err := fdatasync(f); err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), err)
	}
	if d.synced != nil {
		d.synced(f.Name())
	}
	return nil
}

func (d disk) syncDir(path string) (err error) {
	if d.noSync {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if d.synced != nil {
		d.synced(path)
	}
	return nil
}

// rename puts a finished file in its place, durably.
func (d disk) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(to))
}

// slotFile is slots in a file of two slots.
type slotFile struct {
	f    *os.File
	disk disk
}

// openSlotFile opens the file. If there is none, it is created with the two
// records given, as a whole or not at all.
func openSlotFile(path string, d disk, initial [2][]byte) (*slotFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createSlotFile(path, d, initial); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, err
	}
	return &slotFile{f: f, disk: d}, nil
}

func createSlotFile(path string, d disk, initial [2][]byte) (err error) {
	temporary := path + temporarySuffix
	f, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	content := make([]byte, 2*slotBytes)
	copy(content, initial[0])
	copy(content[slotBytes:], initial[1])
	_, err = f.Write(content)
	if err == nil {
		err = d.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return d.rename(temporary, path)
}

func (s *slotFile) read() (found [2][]byte, err error) {
	for i := range found {
		found[i] = make([]byte, slotBytes)
		n, err := s.f.ReadAt(found[i], int64(i)*slotBytes)
		if err != nil && !errors.Is(err, io.EOF) {
			return found, err
		}
		found[i] = found[i][:n]
	}
	return found, nil
}

func (s *slotFile) write(slot uint64, b []byte) error {
	if len(b) > slotBytes {
		return fmt.Errorf("%d bytes for a slot of %d", len(b), slotBytes)
	}
	if _, err := s.f.WriteAt(b, int64(slot)*slotBytes); err != nil {
		return err
	}
	return s.disk.sync(s.f)
}

func (s *slotFile) Close() error { return s.f.Close() }

// slotMemory is slots in memory.
type slotMemory struct {
	mu struct {
		sync.Mutex
		slots  [2][]byte
		closed bool
	}
}

func newSlotMemory(initial [2][]byte) *slotMemory {
	s := &slotMemory{}
	s.mu.slots = initial
	return s
}

// clone is what a crash now would leave behind.
func (s *slotMemory) clone() *slotMemory {
	found, _ := s.read()
	return newSlotMemory(found)
}

func (s *slotMemory) read() ([2][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return [2][]byte{bytes.Clone(s.mu.slots[0]), bytes.Clone(s.mu.slots[1])}, nil
}

func (s *slotMemory) write(slot uint64, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return ErrClosed
	}
	s.mu.slots[slot] = bytes.Clone(b)
	return nil
}

func (s *slotMemory) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	return nil
}
