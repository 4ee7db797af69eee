// Package session remembers, for one shard and one client session, which
// writes were executed and how they ended, so that a retry is answered instead
// of executed again. It follows RIFL (Lee et al., "Implementing Linearizability
// at Large Scale and Low Latency", SOSP 2015), with a window of outstanding
// sequence numbers and with an expiry that is decided in the replicated log.
//
// Row 1 of the layers: pure values and functions over the standard library and
// shardcfg. Nothing here reads a clock: times arrive as arguments.
package session

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Key identifies a session within a shard. The birth comes first so that the
// records of a shard stand in the order in which they expire. A client that
// claims two births for one id has two sessions: it only harms itself.
type Key struct {
	// Birth is when the session began, in ms since 1970.
	Birth uint64
	ID    shardcfg.SessionID
}

// KeyBytes is the length of an encoded Key.
const KeyBytes = 8 + 16

// Append appends the 24-byte encoding of k, which sorts by birth.
func (k Key) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, k.Birth)
	return append(dst, k.ID[:]...)
}

// A Stamp is what a write carries to be recognised. Sequence 0 means that the
// write is not protected: then the rest is ignored.
type Stamp struct {
	Key Key
	// AckedBelow says that the client has an answer to every sequence number
	// below it: those results may be forgotten.
	AckedBelow uint64
	// Sequence is unique within the session, from 1 upwards.
	Sequence uint64
}

// A Result is how one executed write ended. A refused write leaves none.
type Result struct {
	Sequence uint64
	Code     uint8
	Version  shardcfg.Revision
	Length   uint64
}

// A Record is what one shard knows of one session. The zero Record knows
// nothing.
type Record struct {
	// AckedBelow is the greatest mark that an executed write brought.
	AckedBelow uint64
	// Results are those at or above AckedBelow, in ascending order of sequence.
	Results []Result
}

// A Standing says what to do with a stamped write.
type Standing uint8

const (
	// Fresh: not executed before; execute it.
	Fresh Standing = iota
	// Repeat: executed before; answer with the remembered result.
	Repeat
	// Stale: acknowledged before; its result may be forgotten.
	Stale
	// Full: fresh, but the session has too many unacknowledged results.
	Full
	// Expired: the session was born before the shard's floor.
	Expired
	// Ahead: the session's birth is too far in the future.
	Ahead
)

// Admit judges a session by its birth: Expired, Ahead, or Fresh. All times are
// in ms; floor is the shard's, clock the log entry's.
//
// A floor that another group raised by a clock of its own may be ahead of clock.
// It was a clock's time once, so it counts as one: otherwise no birth would do
// until this clock gets there, and the shard would take no write till then.
//
// Expiry comes before everything else, remembered results included: if it did
// not, a client could be told "expired" and later "done" for the same write.
func Admit(birth, floor, clock, aheadMax uint64) Standing {
	switch {
	case birth < floor:
		return Expired
	case birth > max(clock, floor) && birth-max(clock, floor) > aheadMax:
		return Ahead
	}
	return Fresh
}

// Judge says what to do with the write that s stamps: Fresh, Repeat (with the
// result), Stale, or Full if r would remember more than resultsMax results.
// It changes nothing.
func (r *Record) Judge(s Stamp, resultsMax int) (Result, Standing) {
	if s.Sequence < max(r.AckedBelow, s.AckedBelow) {
		return Result{}, Stale
	}
	i, found := r.find(s.Sequence)
	if found {
		return r.Results[i], Repeat
	}
	acked, _ := r.find(s.AckedBelow)
	if len(r.Results)-acked >= resultsMax {
		return Result{}, Full
	}
	return Result{}, Fresh
}

// Remember adds the result of an executed write that Judge called Fresh, and
// forgets what ackedBelow allows.
func (r *Record) Remember(res Result, ackedBelow uint64) {
	i, found := r.find(res.Sequence)
	if found {
		panic(fmt.Sprintf("session: sequence %d executed twice", res.Sequence))
	}
	r.Results = slices.Insert(r.Results, i, res)
	if ackedBelow > r.AckedBelow {
		r.AckedBelow = ackedBelow
		n, _ := r.find(ackedBelow)
		r.Results = slices.Delete(r.Results, 0, n)
	}
}

// find returns the first result at or above sequence, and whether it is that.
func (r *Record) find(sequence uint64) (int, bool) {
	return slices.BinarySearchFunc(r.Results, sequence, func(a Result, s uint64) int {
		return cmp.Compare(a.Sequence, s)
	})
}

// Errors of Decode: the replica that meets one must stop.
var (
	ErrCorrupt = errors.New("session record is damaged")
	ErrFormat  = errors.New("session record is of a format that this version does not know")
)

const format = 1

// Append appends the encoding of r:
//
//	format       u8       1
//	acked below  uvarint
//	count        uvarint
//	count x { sequence uvarint (above the one before), code u8, version uvarint, length uvarint }
//
// The sequence is written as the distance from the one before, the first as
// the distance from acked below.
func (r *Record) Append(dst []byte) []byte {
	dst = append(dst, format)
	dst = binary.AppendUvarint(dst, r.AckedBelow)
	dst = binary.AppendUvarint(dst, uint64(len(r.Results)))
	last := r.AckedBelow
	for _, res := range r.Results {
		dst = binary.AppendUvarint(dst, res.Sequence-last)
		dst = append(dst, res.Code)
		dst = binary.AppendUvarint(dst, uint64(res.Version))
		dst = binary.AppendUvarint(dst, res.Length)
		last = res.Sequence
	}
	return dst
}

// Decode reads an encoded record. It accepts only what Append writes. Errors
// wrap ErrCorrupt or ErrFormat.
func Decode(b []byte) (Record, error) {
	if len(b) == 0 {
		return Record{}, fmt.Errorf("%w: empty", ErrCorrupt)
	}
	if b[0] != format {
		return Record{}, fmt.Errorf("%w: format %d", ErrFormat, b[0])
	}
	d := decoder{b: b[1:]}
	r := Record{AckedBelow: d.uvarint()}
	count := d.uvarint()
	const resultBytesMin = 4
	if count*resultBytesMin > uint64(len(d.b)) || count > uint64(len(b)) {
		return Record{}, fmt.Errorf("%w: %d results in %d bytes", ErrCorrupt, count, len(d.b))
	}
	if count > 0 {
		r.Results = make([]Result, count)
	}
	last := r.AckedBelow
	for i := range r.Results {
		step := d.uvarint()
		if (step == 0 && i > 0) || last+step < last {
			d.bad = true
		}
		last += step
		r.Results[i] = Result{Sequence: last, Code: d.byte(),
			Version: shardcfg.Revision(d.uvarint()), Length: d.uvarint()}
	}
	if d.bad || len(d.b) != 0 {
		return Record{}, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(b))
	}
	return r, nil
}

// decoder reads from b until something is bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	// A last byte of zero is a longer encoding than is needed: one state must
	// have one encoding, or digests of equal states differ.
	if n <= 0 || (n > 1 && d.b[n-1] == 0) {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}
