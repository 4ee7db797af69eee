package ctrlfsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// The stored keys. Numbers are big-endian, so that their order is that of the
// bytes.
//
//	0x01                         meta
//	0x02 | config num u64        a configuration (shardcfg.AppendConfig)
//	0x03 | shard u16             claimed: incarnation [16]byte, generation u32
//	0x04 | incarnation           registered: gid u64, num of the config that first bound it u64
//	0x05 | birth u64 | id        result of an admin request
//	0x06 | gid u64               num of the config in which the group began to leave u64
//	0x07 | shard u16             last repair: group [16]byte, frozen gen u32, frozen num u64, gen u32
const (
	prefixMeta       = 0x01
	prefixConfig     = 0x02
	prefixClaim      = 0x03
	prefixRegistered = 0x04
	prefixRequest    = 0x05
	prefixLeave      = 0x06
	prefixRepair     = 0x07
)

// ErrState is wrapped by errors about a stored state that this version cannot
// have written. The replica must stop.
var ErrState = errors.New("controller state is damaged")

// A View reads the controller's state from a store, a snapshot or a batch. It
// is a value without state of its own; any number may be in use.
type View struct {
	r          store.Reader
	shardCount int
}

// NewView reads r, the state of a cluster of shardCount shards.
func NewView(r store.Reader, shardCount int) View { return View{r: r, shardCount: shardCount} }

// meta is the machine's own record.
type meta struct {
	num          shardcfg.ConfigNum // of the latest config
	oldest       shardcfg.ConfigNum // kept; 0 while none was made
	historyBytes uint64             // of all kept configs
	floorMS      uint64             // requests born earlier are refused
	clockMS      uint64             // of the last entry with a command
	requests     uint64             // results kept
	claims       uint64             // how often claims, or repairs, changed
}

const (
	metaFormat = 1
	metaBytes  = 1 + 4 + 7*8
)

// Num is the latest config's number.
func (v View) Num() (shardcfg.ConfigNum, error) {
	m, err := v.meta()
	return m.num, err
}

// Latest returns the latest configuration, which the caller owns.
func (v View) Latest() (*shardcfg.Config, error) {
	m, err := v.meta()
	if err != nil {
		return nil, err
	}
	c, ok, err := v.ConfigAt(m.num)
	if err == nil && !ok {
		err = fmt.Errorf("%w: config %d, the latest, is missing", ErrState, m.num)
	}
	return c, err
}

// ConfigAt returns the configuration of a number, which the caller owns, and
// whether it is kept. Config 0, without groups, always is.
func (v View) ConfigAt(num shardcfg.ConfigNum) (*shardcfg.Config, bool, error) {
	if num == 0 {
		return &shardcfg.Config{
			Shards: make([]shardcfg.GroupID, v.shardCount),
			Groups: map[shardcfg.GroupID]shardcfg.Group{},
			Pins:   map[shardcfg.ShardID]shardcfg.Pin{},
		}, true, nil
	}
	b, ok, err := v.r.Get(numberKey(prefixConfig, uint64(num)))
	if err != nil || !ok {
		return nil, false, err
	}
	c, err := shardcfg.DecodeConfig(b)
	if err == nil && (c.Num != num || len(c.Shards) != v.shardCount) {
		err = fmt.Errorf("stored as config %d of %d shards, it says %d and %d", num, v.shardCount, c.Num, len(c.Shards))
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrState, err)
	}
	return c, true, nil
}

// Oldest is the number of the oldest config that is kept, besides config 0.
func (v View) Oldest() (shardcfg.ConfigNum, error) {
	m, err := v.meta()
	return m.oldest, err
}

// ClaimedBy returns the incarnation that creates, or created, the first token of
// a shard; zero if nobody claimed it.
func (v View) ClaimedBy(s shardcfg.ShardID) (inc shardcfg.Incarnation, err error) {
	b, ok, err := v.r.Get(claimKey(s))
	if err != nil || !ok {
		return inc, err
	}
	return decodeClaim(b)
}

// ClaimsOf returns the shards that an incarnation claimed, in ascending order.
func (v View) ClaimsOf(inc shardcfg.Incarnation) ([]shardcfg.ShardID, error) {
	var out []shardcfg.ShardID
	err := v.eachClaim(func(s shardcfg.ShardID, by shardcfg.Incarnation) bool {
		if by == inc {
			out = append(out, s)
		}
		return true
	})
	return out, err
}

// ClaimsVersion rises whenever a shard is claimed or repaired, so that a reader
// may keep what it made of claims and repairs.
func (v View) ClaimsVersion() (uint64, error) {
	m, err := v.meta()
	return m.claims, err
}

// Claims returns all claimed shards by the incarnation that claimed them, each
// list in ascending order.
func (v View) Claims() (map[shardcfg.Incarnation][]shardcfg.ShardID, error) {
	out := map[shardcfg.Incarnation][]shardcfg.ShardID{}
	err := v.eachClaim(func(s shardcfg.ShardID, by shardcfg.Incarnation) bool {
		out[by] = append(out[by], s)
		return true
	})
	return out, err
}

// Answered returns the kept result of an admin request, and whether there is
// one.
func (v View) Answered(id RequestID) (Result, bool, error) {
	b, ok, err := v.r.Get(requestKey(id))
	if err != nil || !ok {
		return Result{}, false, err
	}
	res, err := decodeResult(b)
	return res, err == nil, err
}

// Registered returns the gid that an incarnation was first bound to, and
// whether it ever was. It stays known when the group is gone.
func (v View) Registered(inc shardcfg.Incarnation) (shardcfg.GroupID, bool, error) {
	b, ok, err := v.r.Get(registeredKey(inc))
	if err != nil || !ok {
		return 0, false, err
	}
	if len(b) != 16 {
		return 0, false, fmt.Errorf("%w: record of incarnation %v has %d bytes", ErrState, inc, len(b))
	}
	return shardcfg.GroupID(binary.BigEndian.Uint64(b)), true, nil
}

// WasBound reports whether any incarnation was ever bound to a gid, which stays
// known when the group is gone. It reads the records of all incarnations.
func (v View) WasBound(gid shardcfg.GroupID) (bound bool, err error) {
	it, err := v.r.Iterate([]byte{prefixRegistered}, []byte{prefixRegistered + 1})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		if len(it.Value()) != 16 {
			return false, fmt.Errorf("%w: record of an incarnation has %d bytes", ErrState, len(it.Value()))
		}
		if shardcfg.GroupID(binary.BigEndian.Uint64(it.Value())) == gid {
			return true, nil
		}
	}
	return false, nil
}

// LeftAt returns the number of the config in which a listed group began to
// leave; 0 if it does not leave.
func (v View) LeftAt(gid shardcfg.GroupID) (shardcfg.ConfigNum, error) {
	b, ok, err := v.r.Get(numberKey(prefixLeave, uint64(gid)))
	if err != nil || !ok {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: leave of group %d has %d bytes", ErrState, gid, len(b))
	}
	return shardcfg.ConfigNum(binary.BigEndian.Uint64(b)), nil
}

func (v View) anyClaim() (bool, error) {
	any := false
	err := v.eachClaim(func(shardcfg.ShardID, shardcfg.Incarnation) bool {
		any = true
		return false
	})
	return any, err
}

// eachClaim calls f for every claimed shard, in ascending order, until it
// returns false.
func (v View) eachClaim(f func(shardcfg.ShardID, shardcfg.Incarnation) bool) (err error) {
	it, err := v.r.Iterate([]byte{prefixClaim}, []byte{prefixClaim + 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.Next() {
		if len(it.Key()) != 3 {
			return fmt.Errorf("%w: claim under key %x", ErrState, it.Key())
		}
		inc, err := decodeClaim(it.Value())
		if err != nil {
			return err
		}
		if !f(shardcfg.ShardID(binary.BigEndian.Uint16(it.Key()[1:])), inc) {
			return nil
		}
	}
	return nil
}

func (v View) meta() (meta, error) {
	b, ok, err := v.r.Get([]byte{prefixMeta})
	if err != nil || !ok {
		return meta{}, err
	}
	if len(b) != metaBytes || b[0] != metaFormat {
		return meta{}, fmt.Errorf("%w: meta record of %d bytes is of no known format", ErrState, len(b))
	}
	if n := binary.BigEndian.Uint32(b[1:]); int(n) != v.shardCount {
		return meta{}, fmt.Errorf("%w: it is of a cluster of %d shards, and this replica is of one of %d", ErrState, n, v.shardCount)
	}
	u := func(i int) uint64 { return binary.BigEndian.Uint64(b[5+8*i:]) }
	return meta{
		num: shardcfg.ConfigNum(u(0)), oldest: shardcfg.ConfigNum(u(1)), historyBytes: u(2),
		floorMS: u(3), clockMS: u(4), requests: u(5), claims: u(6),
	}, nil
}

func (m meta) encode(shardCount int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{metaFormat}, uint32(shardCount))
	for _, u := range []uint64{uint64(m.num), uint64(m.oldest), m.historyBytes, m.floorMS, m.clockMS, m.requests, m.claims} {
		b = binary.BigEndian.AppendUint64(b, u)
	}
	return b
}

func decodeClaim(b []byte) (inc shardcfg.Incarnation, err error) {
	if len(b) != len(inc)+4 {
		return inc, fmt.Errorf("%w: claim of %d bytes", ErrState, len(b))
	}
	copy(inc[:], b)
	return inc, nil
}

func numberKey(prefix byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, n)
}

func claimKey(s shardcfg.ShardID) []byte {
	return binary.BigEndian.AppendUint16([]byte{prefixClaim}, uint16(s))
}

func registeredKey(inc shardcfg.Incarnation) []byte {
	return append([]byte{prefixRegistered}, inc[:]...)
}
