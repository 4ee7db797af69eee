// Package salvage reads what the directory of a stopped replica holds, when the
// group that it belonged to can never have a majority again, and makes of it the
// first replica of a new group.
//
// It works on a copy, and never changes the directory. The copy is brought up to the
// end of its log: nobody can tell which entries behind the state were acknowledged,
// so all of them are applied, and Found says so. What the group acknowledged without
// this replica is not there.
//
// Row 4 of the layers: it uses the group's machine, raftgroup and the file system,
// and no network. It starts no goroutine; one caller at a time.
package salvage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/host"
	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Options say what to salvage.
type Options struct {
	// Dir is the data directory of the stopped replica.
	Dir string
	// Copy is a directory that does not exist yet: the copy is made there. It needs
	// as much space as Dir, or, with Link, less.
	Copy string
	// Link lets the copy share with Dir the files that nobody ever writes to again.
	Link bool
	// StateOnly leaves the log alone, which may be damaged.
	StateOnly bool
}

// A RefusedError says why a directory can't be salvaged.
type RefusedError struct{ Problem string }

func (e *RefusedError) Error() string { return e.Problem }

// Found is what a directory holds.
type Found struct {
	Identity formation.Identity
	// Replayed says from which entry the state is, and what of the log was applied
	// to it.
	raftgroup.Replayed
	// Config is the newest configuration that the group had adopted, here; 0: none.
	Config shardcfg.ConfigNum
	// Served are the shards that the group served at that moment. Frozen ones were
	// on their way to another group, which may serve newer data by now. Lacking ones
	// were the group's to serve by that configuration, and their data is not here.
	Served, Frozen, Lacking []shardcfg.ShardID
}

// A Salvage is an open copy.
type Salvage struct {
	o       Options
	found   Found
	store   *pebblestore.Store
	records []kvfsm.Record
}

const (
	oldLogDir = "salvaged-log"
	pageKeys  = 1000
	pageBytes = 1 << 20
)

// Open makes the copy and brings it up to the end of its log. Errors include
// *RefusedError, *host.LockedError and those of package formation.
func Open(o Options) (_ *Salvage, err error) {
	release, err := host.LockStopped(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	id, err := formation.Read(o.Dir)
	if err != nil {
		return nil, err
	}
	if id.Group == 0 {
		return nil, &RefusedError{o.Dir + " is the directory of a controller: it holds no keys"}
	}
	s := &Salvage{o: o, found: Found{Identity: id}}
	if err := os.Mkdir(o.Copy, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(), os.RemoveAll(o.Copy))
		}
	}()
	if err := pebblestore.Clone(filepath.Join(o.Dir, formation.StateDir), filepath.Join(o.Copy, formation.StateDir), o.Link); err != nil {
		return nil, err
	}
	if s.store, err = pebblestore.Open(pebblestore.Options{Dir: filepath.Join(o.Copy, formation.StateDir)}); err != nil {
		return nil, err
	}
	if err := s.replay(); err != nil {
		return nil, err
	}
	return s, s.look()
}

// replay brings the state up to the end of the log.
func (s *Salvage) replay() (err error) {
	id := s.found.Identity
	machine := kvfsm.New(kvfsm.Config{Group: id.Group, Incarnation: id.Incarnation, ShardCount: id.ShardCount})
	if s.o.StateOnly {
		s.found.Replayed, err = raftgroup.Replay(s.store, machine, nil)
		return err
	}
	dir := filepath.Join(s.o.Copy, oldLogDir)
	if err := copyLog(s.o.Dir, dir); err != nil {
		return fmt.Errorf("copy the log: %w", err)
	}
	log, err := logstore.Open(id.LogStore, dir, logstore.Options{})
	if err != nil {
		return err
	}
	s.found.Replayed, err = raftgroup.Replay(s.store, machine, log)
	return errors.Join(err, log.Close(), os.RemoveAll(dir))
}

// copyLog copies whatever a log store may keep in a data directory: all files but
// those that are known to be others.
func copyLog(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && name != formation.StateDir {
			err = os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name)))
		} else if e.Type().IsRegular() && name != formation.FileName {
			err = copyFile(filepath.Join(from, name), filepath.Join(to, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// look sees which shards the copy has.
func (s *Salvage) look() (err error) {
	if s.records, err = kvfsm.ReadRecords(s.store); err != nil {
		return err
	}
	adopted, err := kvfsm.ReadAdopted(s.store)
	if err != nil {
		return err
	}
	f := &s.found
	has := make([]bool, f.Identity.ShardCount)
	for i := range s.records {
		switch r := &s.records[i]; {
		case r.Phase.Serves():
			f.Served = append(f.Served, r.Shard)
			has[r.Shard] = true
		case r.Phase == kvfsm.PhaseFrozen:
			f.Frozen = append(f.Frozen, r.Shard)
			has[r.Shard] = true
		}
	}
	if adopted.Config == nil {
		return nil
	}
	f.Config = adopted.Config.Num
	for i := range adopted.Config.Shards {
		shard := shardcfg.ShardID(i)
		if _, owner := adopted.Config.Owner(shard); owner == f.Identity.Incarnation && !has[i] {
			f.Lacking = append(f.Lacking, shard)
		}
	}
	return nil
}

// Found says what the directory holds.
func (s *Salvage) Found() Found { return s.found }

// Reader reads the keys of a Salvage.
type Reader struct {
	s *Salvage
	// frozen: also those of shards that were frozen.
	frozen bool
}

// Reader returns a reader of the shards that were served, and if wanted of those
// that were frozen.
func (s *Salvage) Reader(frozen bool) *Reader { return &Reader{s, frozen} }

// Scan calls each for every key with the prefix, shard by shard; value is nil with
// keysOnly. It ends at the first error of each, and returns it. Key and value are
// each's own.
func (r *Reader) Scan(ctx context.Context, prefix []byte, keysOnly bool, each func(key, value []byte) error) error {
	for i := range r.s.records {
		rec := &r.s.records[i]
		if !slices.Contains(r.s.found.Served, rec.Shard) && !(r.frozen && slices.Contains(r.s.found.Frozen, rec.Shard)) {
			continue
		}
		q := kvfsm.Scan{Prefix: prefix, KeysMax: pageKeys, BytesMax: pageBytes, KeysOnly: keysOnly}
		for {
			page, err := kvfsm.ScanHeld(r.s.store, rec, q)
			if err != nil {
				return fmt.Errorf("read shard %d: %w", rec.Shard, err)
			}
			for _, e := range page.Entries {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := each(e.Key, e.Value); err != nil {
					return err
				}
			}
			if page.End {
				break
			}
			q.After = bytes.Clone(page.Entries[len(page.Entries)-1].Key)
		}
	}
	return nil
}

// Check counts every shard's content from scratch: an error says which shard is not
// what its digest says.
func (s *Salvage) Check() error {
	for i := range s.records {
		if err := kvfsm.CheckContent(s.store, s.records[i].Shard); err != nil {
			return err
		}
	}
	return nil
}

// Reform makes of the copy the data directory of the first replica of a new group,
// in which no shard is served until the controllers allow it (kvfsm.Reform), and
// closes it. The server is started on it under that gid, label and address. Once it
// has returned an error the copy is of no use.
func (s *Salvage) Reform(gid shardcfg.GroupID, label, address string) (_ formation.Identity, err error) {
	old := s.found.Identity
	id, err := old.Reformed(gid, label, address)
	if err != nil {
		return id, err
	}
	log, err := logstore.Open(id.LogStore, s.o.Copy, logstore.Options{})
	if err != nil {
		return id, err
	}
	err = raftgroup.Reform(s.store, log, id.Founders[0], func(b store.Batch) error {
		_, err := kvfsm.Reform(b, kvfsm.Peer{Incarnation: old.Incarnation, Group: old.Group})
		return err
	})
	if err = errors.Join(err, log.Close(), s.Close()); err != nil {
		return id, err
	}
	return id, formation.Take(s.o.Copy, id)
}

// Close closes the copy, which stays.
func (s *Salvage) Close() error {
	if s.store == nil {
		return nil
	}
	open := s.store
	s.store = nil
	return open.Close()
}
