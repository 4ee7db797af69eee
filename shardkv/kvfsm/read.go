package kvfsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/session"
)

// Adopted is what a group knows of the configuration.
type Adopted struct {
	// Cluster is the pinned cluster; zero before the first config.
	Cluster shardcfg.ClusterID
	// Config is the newest adopted config; nil before the first.
	Config *shardcfg.Config
}

// ReadAdopted returns what the group adopted.
func ReadAdopted(r store.Reader) (Adopted, error) {
	var a Adopted
	b, ok, err := r.Get(machineKey(machineCluster))
	if err != nil || !ok {
		return a, err
	}
	if a.Cluster, ok = shardcfg.To128[shardcfg.ClusterID](b); !ok {
		return a, fmt.Errorf("%w: cluster id of %d bytes", ErrState, len(b))
	}
	b, ok, err = r.Get(machineKey(machineAdopted))
	if err != nil {
		return a, err
	}
	if !ok {
		return a, fmt.Errorf("%w: cluster without a config", ErrState)
	}
	if a.Config, err = shardcfg.DecodeConfig(b); err != nil {
		return a, fmt.Errorf("%w: %w", ErrState, err)
	}
	return a, nil
}

// ReadAdoptedNum returns the number of the adopted config, 0 before the first,
// without decoding it.
func ReadAdoptedNum(r store.Reader) (shardcfg.ConfigNum, error) {
	b, ok, err := r.Get(machineKey(machineAdoptedNum))
	switch {
	case err != nil || !ok:
		return 0, err
	case len(b) != 8:
		return 0, fmt.Errorf("%w: config number of %d bytes", ErrState, len(b))
	}
	return shardcfg.ConfigNum(binary.BigEndian.Uint64(b)), nil
}

// ReadRecord returns a shard's record. A shard that the group never met is
// Absent.
func ReadRecord(r store.Reader, s shardcfg.ShardID) (Record, error) {
	b, ok, err := r.Get(recordKey(s))
	if err != nil || !ok {
		return Record{Shard: s}, err
	}
	return parseRecord(s, b)
}

// ReadRecords returns all records that exist, in ascending order of shard.
func ReadRecords(r store.Reader) (records []Record, err error) {
	err = eachRecord(r, 0, func(rec *Record) (bool, error) {
		records = append(records, *rec)
		return true, nil
	})
	return records, err
}

// eachRecord calls look with the records that exist, in ascending order of shard
// from a shard on, until it says that it wants no more.
func eachRecord(r store.Reader, from shardcfg.ShardID, look func(rec *Record) (more bool, err error)) error {
	prefix := machineKey(machineRecord)
	it, err := r.Iterate(recordKey(from), store.PrefixEnd(prefix))
	if err != nil {
		return err
	}
	for more := true; more && it.Next(); {
		key := it.Key()
		if len(key) != len(prefix)+2 {
			it.Close()
			return fmt.Errorf("%w: record key % x", ErrState, key)
		}
		// The record keeps the cursor's key, so it must not alias the iterator.
		rec, err := parseRecord(shardcfg.ShardID(binary.BigEndian.Uint16(key[len(prefix):])), append([]byte(nil), it.Value()...))
		if err == nil {
			more, err = look(&rec)
		}
		if err != nil {
			it.Close()
			return err
		}
	}
	return it.Close()
}

// A Lookup is the result of Get.
type Lookup struct {
	// Code is CodeOK, CodeNotFound, CodeInvalid (the key's length), or
	// CodeWrongGroup.
	Code    Code
	Value   []byte // the caller's
	Version shardcfg.Revision
	// Where is set with CodeWrongGroup. Its Next is only what the record says:
	// the owner by the config is left to the caller, who has it decoded.
	Where Where
}

// Get reads a key. r must be a snapshot taken after a read barrier: phase and
// value come from the same state (INV-3).
func Get(r store.Reader, shardCount int, key []byte) (Lookup, error) {
	if shardcfg.CheckKey(key) != nil {
		return Lookup{Code: CodeInvalid}, nil
	}
	rec, err := ReadRecord(r, shardcfg.ShardOf(key, shardCount))
	if err != nil {
		return Lookup{}, err
	}
	return GetIn(r, &rec, key)
}

// GetIn is Get for who has read the record of the key's shard from r, and reads
// many keys.
func GetIn(r store.Reader, rec *Record, key []byte) (Lookup, error) {
	if shardcfg.CheckKey(key) != nil {
		return Lookup{Code: CodeInvalid}, nil
	}
	if !rec.Phase.Serves() {
		return Lookup{Code: CodeWrongGroup, Where: rec.where()}, nil
	}
	stored := append(rec.held().prefix(make([]byte, 0, copyPrefixBytes+1+len(key))), kindRecord)
	b, ok, err := r.Get(append(stored, key...))
	if err != nil {
		return Lookup{}, err
	}
	if !ok {
		return Lookup{Code: CodeNotFound}, nil
	}
	version, value, err := parseValue(b)
	return Lookup{Code: CodeOK, Value: value, Version: version}, err
}

// held returns the held copy.
func (r *Record) held() copyID { return copyID{r.Shard, r.Copy} }

// where says what the record knows of a shard that it does not serve.
func (r *Record) where() Where {
	return Where{Shard: r.Shard, Phase: r.Phase, Epoch: r.Epoch, Next: r.To, Staging: r.Staging != nil}
}

// ReadFloor returns the session floor of a shard's held copy, in ms.
func ReadFloor(r store.Reader, rec *Record) (uint64, error) {
	b, ok, err := r.Get(rec.held().key(nil, metaFloor))
	if err != nil || !ok {
		return 0, err
	}
	return parseFloor(b)
}

// Recall returns how a write ended, if a shard that is served remembers that it was
// executed; false: that is not known here, or the session is older than the shard
// remembers, which only applying the write tells for good. r may be any state of
// the group: what was executed once was executed.
func Recall(r store.Reader, s shardcfg.ShardID, stamp session.Stamp) (Outcome, bool, error) {
	rec, err := ReadRecord(r, s)
	if err != nil || !rec.Phase.Serves() {
		return Outcome{}, false, err
	}
	if floor, err := ReadFloor(r, &rec); err != nil || stamp.Key.Birth < floor {
		return Outcome{}, false, err
	}
	b, ok, err := r.Get(rec.held().key(nil, stamp.Key.Append([]byte{kindSession})))
	if err != nil || !ok {
		return Outcome{}, false, err
	}
	known, err := session.Decode(b)
	if err != nil {
		return Outcome{}, false, fmt.Errorf("%w: shard %d session %v: %w", ErrState, s, stamp.Key.ID, err)
	}
	res, standing := known.Judge(stamp, math.MaxInt)
	return outcomeOf(res), standing == session.Repeat, nil
}

// outcomeOf is the outcome of a write that a session remembers.
func outcomeOf(res session.Result) Outcome {
	return Outcome{Code: Code(res.Code), Version: res.Version, Length: res.Length, Repeat: true}
}

func parseFloor(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: session floor of %d bytes", ErrState, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// HasSessionsBefore reports whether a held copy has the record of a session
// that was born before a time: whether it is worth raising the floor to it, or,
// if it is the floor, pruning.
func HasSessionsBefore(r store.Reader, rec *Record, birth uint64) (bool, error) {
	c := rec.held()
	it, err := r.Iterate(c.at(kindSession), c.at(kindSession, binary.BigEndian.AppendUint64(nil, birth)...))
	if err != nil {
		return false, err
	}
	found := it.Next()
	return found, it.Close()
}

// CheckContent counts a shard's held copy and staging from scratch and returns
// an error that wraps ErrState if they differ from the record (INV-6). It reads
// everything.
func CheckContent(r store.Reader, s shardcfg.ShardID) error {
	rec, err := ReadRecord(r, s)
	if err != nil {
		return err
	}
	if rec.Copy != 0 {
		got, err := countContent(r, rec.held())
		if err != nil {
			return err
		}
		if got != rec.Content {
			return fmt.Errorf("%w: shard %d copy %d has %+v, its record says %+v", ErrState, s, rec.Copy, got, rec.Content)
		}
	}
	if st := rec.Staging; st != nil {
		got, err := countContent(r, copyID{s, st.Copy})
		if err != nil {
			return err
		}
		if got != st.Content {
			return fmt.Errorf("%w: shard %d staging %d has %+v, its record says %+v", ErrState, s, st.Copy, got, st.Content)
		}
	}
	return nil
}

// CheckLeftovers returns an error that wraps ErrState if something is stored for a
// shard that belongs neither to its held copy nor to its staging, or to a change
// log that nobody reads any more: it would stay for ever. It reads everything.
func CheckLeftovers(r store.Reader, s shardcfg.ShardID) error {
	rec, err := ReadRecord(r, s)
	if err != nil {
		return err
	}
	it, err := r.Iterate(copyID{s, 0}.prefix(nil), copyID{s + 1, 0}.prefix(nil))
	if err != nil {
		return err
	}
	held, staged := rec.held().prefix(nil), []byte(nil)
	if rec.Staging != nil {
		staged = copyID{rec.Shard, rec.Staging.Copy}.prefix(nil)
	}
	logs := rec.Phase == PhaseLeaving || rec.Phase == PhaseFrozen
	for it.Next() {
		key := it.Key()
		if len(key) <= copyPrefixBytes {
			err = fmt.Errorf("%w: shard %d has a stored key % x", ErrState, s, key)
			break
		}
		of, local := key[:copyPrefixBytes], key[copyPrefixBytes] >= KindLocalMin
		if mine := rec.Copy != 0 && bytes.Equal(of, held); !mine && (staged == nil || !bytes.Equal(of, staged)) {
			err = fmt.Errorf("%w: shard %d has leftovers of copy % x: % x", ErrState, s, of, key)
			break
		} else if local && (!mine || !logs) {
			err = fmt.Errorf("%w: shard %d is %v and has a change log: % x", ErrState, s, rec.Phase, key)
			break
		}
	}
	return errors.Join(err, it.Close())
}
