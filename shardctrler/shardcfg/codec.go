package shardcfg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// An encoded Config, for logs and disks, is
//
//	format   u8       1
//	num      uvarint
//	shards   uvarint  how many; then runs until they are all named:
//	                  { length uvarint >= 1, owner uvarint }, neighbours differ
//	groups   uvarint  count; each, in ascending order of gid:
//	                  { gid uvarint, state u8, bound u8, incarnation [16]byte if bound is 1,
//	                    weight uvarint, count uvarint x { length uvarint, address } }
//	pins     uvarint  count; each, in ascending order of shard: { shard uvarint, gid uvarint,
//	                  max pause uvarint (ms) }
//	retired  uvarint  count; each [16]byte, ascending
//
// It is canonical: equal configs have equal bytes, and the decoder refuses
// whatever the encoder would not have written (long forms of a number, runs
// that could be joined, lists out of order, bytes behind the end).
const codecFormat = 1

// Bounds of a configuration. They hold for every config that the controllers
// make, and keep a damaged or hostile encoding from claiming memory.
const (
	GroupsMax       = 4096    // groups listed at once
	ReplicasMax     = 16      // addresses of one group; membership changes may list both old and new
	AddressBytesMax = 262     // a host name of 255 bytes, a colon, a port, and a byte to spare
	WeightMax       = 1 << 20 // largest weight of a group
	RetiredMax      = 1 << 16 // incarnations ever retired
	PauseMSMax      = 60_000  // longest pause of a shard that a pin may allow, in ms
)

// ErrCorrupt is wrapped by the errors of DecodeConfig and Delta.Apply.
var ErrCorrupt = errors.New("configuration is damaged")

// AppendConfig appends the encoding of c to dst and returns the extended slice.
// c is only read.
func AppendConfig(dst []byte, c *Config) []byte {
	dst = append(dst, codecFormat)
	dst = binary.AppendUvarint(dst, uint64(c.Num))
	dst = binary.AppendUvarint(dst, uint64(len(c.Shards)))
	for first := 0; first < len(c.Shards); {
		end := runEnd(c.Shards, first)
		dst = binary.AppendUvarint(dst, uint64(end-first))
		dst = binary.AppendUvarint(dst, uint64(c.Shards[first]))
		first = end
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.Groups)))
	for _, gid := range c.GroupIDs() {
		dst = appendGroup(dst, gid, c.Groups[gid])
	}
	pins := c.PinnedShards()
	dst = binary.AppendUvarint(dst, uint64(len(pins)))
	for _, s := range pins {
		dst = binary.AppendUvarint(dst, uint64(s))
		dst = binary.AppendUvarint(dst, uint64(c.Pins[s].Group))
		dst = binary.AppendUvarint(dst, uint64(c.Pins[s].MaxPauseMS))
	}
	return appendRetired(dst, c.Retired)
}

// DecodeConfig reads what AppendConfig wrote. The config shares no memory with
// b, and its maps are never nil. Errors wrap ErrCorrupt.
func DecodeConfig(b []byte) (*Config, error) {
	r := reader{b: b}
	c := r.config()
	if err := r.finish(); err != nil {
		return nil, err
	}
	return c, nil
}

// Equal reports whether two configs say the same; a nil map or list is as good
// as an empty one.
func (c *Config) Equal(o *Config) bool {
	return bytes.Equal(AppendConfig(nil, c), AppendConfig(nil, o))
}

func appendGroup(dst []byte, gid GroupID, g Group) []byte {
	dst = binary.AppendUvarint(dst, uint64(gid))
	dst = append(dst, byte(g.State))
	if g.Incarnation.IsZero() {
		dst = append(dst, 0)
	} else {
		dst = append(dst, 1)
		dst = append(dst, g.Incarnation[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(g.Weight))
	dst = binary.AppendUvarint(dst, uint64(len(g.Replicas)))
	for _, a := range g.Replicas {
		dst = binary.AppendUvarint(dst, uint64(len(a)))
		dst = append(dst, a...)
	}
	return dst
}

func appendRetired(dst []byte, incs []Incarnation) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(incs)))
	for _, inc := range incs {
		dst = append(dst, inc[:]...)
	}
	return dst
}

// runEnd is the end of the run of equal owners that begins at first.
func runEnd(owners []GroupID, first int) int {
	end := first + 1
	for end < len(owners) && owners[end] == owners[first] {
		end++
	}
	return end
}

// A reader takes an encoding apart. After the first failure every method
// returns zero values, so that only finish needs a check; loops are bounded by
// counts that were checked, and stop at err.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

func (r *reader) finish() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes behind the end", len(r.b))
	}
	return r.err
}

func (r *reader) byte(what string) byte {
	if b := r.bytes(1, what); b != nil {
		return b[0]
	}
	return 0
}

// bytes takes n bytes, which alias the input.
func (r *reader) bytes(n int, what string) []byte {
	if r.err != nil || len(r.b) < n {
		r.fail("%s is cut off", what)
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uvarint(limit uint64, what string) uint64 {
	v, n := binary.Uvarint(r.b)
	switch {
	case r.err != nil:
		return 0
	case n <= 0:
		r.fail("%s is cut off", what)
		return 0
	case n > 1 && r.b[n-1] == 0:
		r.fail("%s is written in a long form", what)
		return 0
	case v > limit:
		r.fail("%s is %d, at most %d", what, v, limit)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) incarnation(what string) (inc Incarnation) {
	copy(inc[:], r.bytes(len(inc), what))
	if r.err == nil && inc.IsZero() {
		r.fail("%s is zero", what)
	}
	return inc
}

const uint64Max = ^uint64(0)

func (r *reader) config() *Config {
	if f := r.byte("format"); f != codecFormat {
		r.fail("format %d", f)
	}
	c := &Config{Num: ConfigNum(r.uvarint(uint64Max, "number"))}
	c.Shards = r.shards()
	n := int(r.uvarint(GroupsMax, "group count"))
	c.Groups = make(map[GroupID]Group, min(n, len(r.b)))
	var last GroupID
	for range n {
		gid, g := r.group()
		if r.err == nil && gid <= last {
			r.fail("group %d after group %d", gid, last)
		}
		if r.err != nil {
			break
		}
		c.Groups[gid], last = g, gid
	}
	c.Pins = r.pins(len(c.Shards))
	c.Retired = r.retired()
	return c
}

func (r *reader) shards() []GroupID {
	n := int(r.uvarint(ShardCountMax, "shard count"))
	if n != 0 && CheckShardCount(n) != nil {
		r.fail("shard count %d", n)
		return nil
	}
	owners := make([]GroupID, 0, n)
	for len(owners) < n && r.err == nil {
		length := int(r.uvarint(uint64(n-len(owners)), "run length"))
		owner := GroupID(r.uvarint(uint64Max, "owner"))
		switch {
		case r.err != nil:
		case length == 0:
			r.fail("empty run at shard %d", len(owners))
		case len(owners) > 0 && owners[len(owners)-1] == owner:
			r.fail("split run at shard %d", len(owners))
		default:
			owners = slices.Grow(owners, length)
			for range length {
				owners = append(owners, owner)
			}
		}
	}
	return owners
}

func (r *reader) group() (GroupID, Group) {
	var g Group
	gid := GroupID(r.uvarint(uint64Max, "gid"))
	g.State = GroupState(r.byte("group state"))
	if r.err == nil && g.State != GroupMember && g.State != GroupLeaving {
		r.fail("state %d of group %d", g.State, gid)
	}
	switch bound := r.byte("bound mark"); bound {
	case 0:
	case 1:
		g.Incarnation = r.incarnation("incarnation")
	default:
		r.fail("bound mark %d of group %d", bound, gid)
	}
	g.Weight = uint32(r.uvarint(WeightMax, "weight"))
	if r.err == nil && g.Weight == 0 {
		r.fail("weight of group %d is 0", gid)
	}
	n := int(r.uvarint(ReplicasMax, "replica count"))
	for range n {
		length := r.uvarint(AddressBytesMax, "address length")
		g.Replicas = append(g.Replicas, string(r.bytes(int(length), "address")))
	}
	return gid, g
}

func (r *reader) pins(shardCount int) map[ShardID]Pin {
	pins := map[ShardID]Pin{}
	n := int(r.uvarint(uint64(shardCount), "pin count"))
	last := -1
	for range n {
		s := int(r.uvarint(uint64(shardCount), "pinned shard"))
		pin := Pin{Group: GroupID(r.uvarint(uint64Max, "pin's group"))}
		pin.MaxPauseMS = uint32(r.uvarint(PauseMSMax, "pin's pause"))
		if r.err == nil && (s <= last || s >= shardCount) {
			r.fail("pin of shard %d after %d, of %d", s, last, shardCount)
		}
		if r.err != nil {
			break
		}
		pins[ShardID(s)], last = pin, s
	}
	return pins
}

func (r *reader) retired() []Incarnation {
	n := int(r.uvarint(RetiredMax, "retired count"))
	var incs []Incarnation
	for range n {
		inc := r.incarnation("retired incarnation")
		if r.err == nil && len(incs) > 0 && incs[len(incs)-1].Compare(inc) >= 0 {
			r.fail("retired incarnations out of order")
		}
		if r.err != nil {
			break
		}
		incs = append(incs, inc)
	}
	return incs
}
