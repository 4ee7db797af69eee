package pebblestore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The names in a store's directory.
const (
	lockName         = "LOCK"
	pointerName      = "CURRENT"
	pointerTempName  = "CURRENT.tmp"
	statePrefix      = "state-"
	checkpointPrefix = "checkpoint-"

	// writeCategory is what Pebble's statistics call our own files.
	writeCategory vfs.DiskWriteCategory = "shoal-store"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func stateName(n uint64) string      { return fmt.Sprintf("%s%06d", statePrefix, n) }
func checkpointName(n uint64) string { return fmt.Sprintf("%s%06d", checkpointPrefix, n) }

// numberIn returns the number of a state or checkpoint directory.
func numberIn(name, prefix string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0
}

func (s *Store) path(name string) string { return s.fs.PathJoin(s.opts.Dir, name) }

// nextNumber returns a number that no directory has.
func (s *Store) nextNumber() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.number++
	return s.mu.number
}

// status says what the directory that the pointer names is.
type status string

const (
	// statusCreating: the first database is being made and was never used. It
	// may be deleted. Were the pointer written only afterwards, a store that lost
	// its pointer would look the same as one that was never used.
	statusCreating status = "creating"
	statusActive   status = "active"
)

// pointer is the content of CURRENT:
//
//	shoal-store 1
//	active state-000001
//	crc32c 89abcdef       (of the two lines before)
type pointer struct {
	number uint64 // 0: there is no store yet
	status status
}

const pointerHeader = "shoal-store 1\n"

func (p pointer) encode() string {
	text := fmt.Sprintf("%s%s %s\n", pointerHeader, p.status, stateName(p.number))
	return fmt.Sprintf("%scrc32c %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

// decodePointer accepts exactly what encode writes.
func decodePointer(text string) (pointer, error) {
	lines := strings.Split(text, "\n")
	if len(lines) == 4 {
		kind, name, _ := strings.Cut(lines[1], " ")
		n, _ := numberIn(name, statePrefix)
		p := pointer{number: n, status: status(kind)}
		known := p.status == statusActive || p.status == statusCreating
		if n > 0 && known && p.encode() == text {
			return p, nil
		}
	}
	return pointer{}, fmt.Errorf("%w: %s reads %q", ErrDamaged, pointerName, text)
}

// readPointer returns number 0 if the directory has no store. A directory that
// has a state but no pointer is refused: deleting it could delete everything.
func (s *Store) readPointer() (pointer, error) {
	file, err := s.fs.Open(s.path(pointerName))
	if errors.Is(err, fs.ErrNotExist) {
		names, err := s.fs.List(s.opts.Dir)
		if err != nil {
			return pointer{}, err
		}
		for _, name := range names {
			if _, ok := numberIn(name, statePrefix); ok {
				return pointer{}, fmt.Errorf("%w: %s without %s", ErrDamaged, name, pointerName)
			}
		}
		return pointer{}, nil
	}
	if err != nil {
		return pointer{}, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 1<<10))
	if err != nil {
		return pointer{}, fmt.Errorf("read %s: %w", pointerName, err)
	}
	return decodePointer(string(text))
}

// writePointer replaces the pointer, durably. After an error either may be in
// force.
func (s *Store) writePointer(p pointer) error {
	temp := s.path(pointerTempName)
	err := writeFile(s.fs, temp, []byte(p.encode()))
	if err == nil {
		err = s.fs.Rename(temp, s.path(pointerName))
	}
	if err == nil {
		err = syncDir(s.fs, s.opts.Dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", pointerName, err)
	}
	return nil
}

// deleteLeftovers deletes every state and checkpoint but the one in force, and
// numbers the next ones above all that were there.
func (s *Store) deleteLeftovers(p pointer) error {
	names, err := s.fs.List(s.opts.Dir)
	if err != nil {
		return err
	}
	newest := p.number
	for _, name := range names {
		n, isState := numberIn(name, statePrefix)
		if !isState {
			var isCheckpoint bool
			if n, isCheckpoint = numberIn(name, checkpointPrefix); !isCheckpoint {
				continue
			}
		}
		newest = max(newest, n)
		if isState && n == p.number && p.status == statusActive {
			continue
		}
		if err := s.fs.RemoveAll(s.path(name)); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	s.mu.Lock()
	s.mu.number = newest
	s.mu.Unlock()
	return nil
}

// makeDir creates dir with its missing parents, durably.
func makeDir(fsys vfs.FS, dir string) error {
	parents := []string{}
	for at := dir; ; {
		if _, err := fsys.Stat(at); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		up := fsys.PathDir(at)
		if up == at {
			break
		}
		parents = append(parents, up)
		at = up
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, parent := range parents {
		if err := syncDir(fsys, parent); err != nil {
			return err
		}
	}
	return nil
}

// writeFile creates a file with the content data, durable but for its name.
func writeFile(fsys vfs.FS, path string, data []byte) error {
	file, err := fsys.Create(path, writeCategory)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// syncDir makes the names in dir durable.
func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
