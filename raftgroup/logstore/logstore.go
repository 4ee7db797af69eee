// Package logstore keeps what Raft must never forget: the log, the current
// term and the vote.
//
// All kinds of log store stand behind Open, and all pass the one contract suite
// of package logstoretest; which one a replica uses is recorded in its identity
// and never changes for the life of its data directory.
//
// Row 3 of the layers: it may use hashicorp/raft, raft-boltdb, bbolt and the
// file system. It starts no goroutine; every method may be called from any.
package logstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// Kinds of log store.
const (
	// KindBolt is raft-boltdb: one B+ tree file, one transaction and two fsyncs
	// for each append.
	KindBolt = "bolt"
	// KindMemory forgets everything when it is closed. It is for tests: a
	// replica that comes back without its log is refused as damaged.
	KindMemory = "memory"
)

// KindDefault is the kind that a group is formed with unless told otherwise.
const KindDefault = KindBolt

// The files of KindBolt in the data directory.
const (
	// boltFileName is the log.
	boltFileName = "raft.db"
	// hardStateFile is the term, the vote, and where the log ends.
	hardStateFile = "hardstate"

	// temporarySuffix marks a file that is being made; it means nothing.
	temporarySuffix = ".tmp"

	fileMode = 0o600
)

var (
	// ErrNotFound says that a key of the stable store was never set. Raft knows
	// it by its text.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt is wrapped by errors about bytes that are not what was written.
	// A replica that meets it must stop.
	ErrCorrupt = errors.New("log store is damaged")
	// ErrMisuse is wrapped by errors about a write that Raft should never ask
	// for: a batch with a hole, a term that falls, a second vote in one term.
	// Nothing was written. A replica that meets it must stop.
	ErrMisuse = errors.New("log store refuses an unsafe write")
	// ErrUnknownKind is wrapped by Open for a kind that this build lacks.
	ErrUnknownKind = errors.New("unknown kind of log store")
	// ErrClosed is wrapped by calls after Close.
	ErrClosed = errors.New("log store is closed")
)

// A LogStore is Raft's log and stable store in one.
//
// Durability: StoreLog, StoreLogs, Set and SetUint64 return after the fsync,
// with one exception: SetUint64("LastVoteTerm") is only held until
// Set("LastVoteCand") writes both in one record. Raft writes them one after
// the other (hashicorp/raft#661), and a crash between two writes would pair the
// new term with the old candidate: a replica could then vote twice in a term.
// The stable store holds the three values that Raft keeps in it, and no others.
//
// Damage: after any change of a byte in its files, Open or GetLog fails with
// ErrCorrupt, or the store shows exactly the log, term and vote that it had.
//
// Gaps between appends are legal (a received snapshot makes one), a gap within
// one append is not; neither is an append over entries that were not deleted, or
// a deletion from the middle. Slices passed in are not kept; slices handed out are
// the caller's.
type LogStore interface {
	raft.LogStore
	raft.StableStore
	// Kind is one of the constants above.
	Kind() string
	// SizeBytes is the size of the store on disk, 0 if it has none.
	SizeBytes() (int64, error)
	// Close makes every later call fail. It does not wait for calls in flight
	// of other goroutines to be answered kindly: stop Raft first.
	Close() error
}

// Options are fixed when a store is opened.
type Options struct {
	// NoSync leaves out every fsync: for benchmarks that measure what an fsync
	// costs, and for tests that must notice, never for data.
	NoSync bool
	// Warn, if set, hears of damage that was found and did no harm.
	Warn func(error)

	// synced, if set, hears of each file and directory that was made durable, other
	// than by bbolt.
	synced func(path string)
}

// Open opens the log store of the given kind in dir, which must exist, and
// creates it where there is none. Only one process may have it open: a second
// Open fails after a second.
func Open(kind, dir string, o Options) (LogStore, error) {
	s, err := open(kind, dir, o)
	if err != nil {
		return nil, fmt.Errorf("open log store %s in %s: %w", kind, dir, err)
	}
	return s, nil
}

func open(kind, dir string, o Options) (*checked, error) {
	initial := [2][]byte{hardState{}.encode(0), hardState{}.encode(1)}
	d := disk{noSync: o.NoSync, synced: o.synced}
	var b backend
	var slots slots
	switch kind {
	case KindBolt:
		bolt, err := openBolt(filepath.Join(dir, boltFileName), d)
		if err != nil {
			return nil, err
		}
		b = bolt
		// The hard state of a log must not begin anew.
		path := filepath.Join(dir, hardStateFile)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && len(bolt.indexes) > 0 {
			return nil, errors.Join(fmt.Errorf("%w: %s is missing", ErrCorrupt, path), b.Close())
		}
		if slots, err = openSlotFile(path, d, initial); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	case KindMemory:
		b, slots = newMemory(), newSlotMemory(initial)
	default:
		return nil, fmt.Errorf("%w: %q (known: %s)", ErrUnknownKind, kind, KindBolt)
	}
	hard, warning, err := openHardStates(slots)
	if warning != nil && o.Warn != nil {
		o.Warn(warning)
	}
	var s *checked
	if err == nil {
		s, err = newChecked(kind, b, hard)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close(), slots.Close())
	}
	return s, nil
}

// Known reports whether Open knows the kind.
func Known(kind string) bool { return kind == KindBolt || kind == KindMemory }

// Exists reports whether dir holds a log store of the given kind, whole.
func Exists(kind, dir string) (bool, error) {
	if kind != KindBolt {
		return false, nil
	}
	found, err := files(dir)
	return found == 2, err
}

// Any reports whether dir holds a log store of whatever kind, or a part of one.
func Any(dir string) (bool, error) {
	found, err := files(dir)
	return found > 0, err
}

// files counts the files of KindBolt that are in dir.
func files(dir string) (found int, err error) {
	for _, name := range []string{boltFileName, hardStateFile} {
		switch _, err := os.Stat(filepath.Join(dir, name)); {
		case err == nil:
			found++
		case !errors.Is(err, fs.ErrNotExist):
			return 0, err
		}
	}
	return found, nil
}
