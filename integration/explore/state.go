package explore

import (
	"math/bits"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

const configsMax = 8

// A state is one state of the whole: where every group's log stands, what the
// controllers decided, what the clients' writes did, and what may still be
// delivered.
type state struct {
	locals [seatsMax]uint32
	lives  [seatsMax]uint8
	// configs are indexes, by number from 1.
	configs     [configsMax]uint32
	configCount uint8
	// claims are granted, by shard; noInc: to nobody yet.
	claims [ShardsMax]incID
	// asked are the seats whose groups asked for the claim, as bits, while nobody
	// has it.
	asked [ShardsMax]uint8
	// minted is the greatest epoch that any group ever held, by shard.
	minted [ShardsMax]uint8
	// order is in which order operations were executed, by shard; versions are
	// what they returned, by operation.
	order    [ShardsMax][OpsMax]uint8
	executed [ShardsMax]uint8
	versions [OpsMax]uint8
	emptied  uint8
	faults   uint8
	// lost says that a fault took a whole staging.
	lost uint8
	disasters

	// facts is a sorted set of what messages may be computed from.
	facts []uint32
	// past are, in a full search, all states that the present groups were in:
	// sorted sets. Their leaders may still be at work.
	past [seatsMax][]uint32
}

func (st *state) copyTo(dst *state) {
	facts, past := dst.facts, dst.past
	*dst = *st
	dst.facts = append(facts[:0], st.facts...)
	for i := range past {
		dst.past[i] = append(past[i][:0], st.past[i]...)
	}
}

func (st *state) inc(seat int) incID { return newInc(seat, int(st.lives[seat])) }

// present returns the state of an incarnation; nil if it is gone.
func (x *explorer) present(st *state, id incID) *local {
	if id == noInc || st.lives[id.seat()] != uint8(id.life()) {
		return nil
	}
	return x.locals[st.locals[id.seat()]]
}

// done reports whether an operation was executed.
func (x *explorer) done(st *state, op int) bool {
	s := x.bound.Ops[op].Shard
	for _, o := range st.order[s][:st.executed[s]] {
		if int(o) == op {
			return true
		}
	}
	return false
}

// newest returns the newest config; nil: none.
func (x *explorer) newest(st *state) *config {
	if st.configCount == 0 {
		return nil
	}
	return x.configs[st.configs[st.configCount-1]]
}

// words is the encoding of a state in a frontier.
func (x *explorer) appendWords(dst []uint32, st *state) []uint32 {
	for i := range x.bound.Groups {
		dst = append(dst, st.locals[i], uint32(st.lives[i]))
	}
	dst = append(dst, uint32(st.configCount)|uint32(st.emptied)<<8|uint32(st.faults)<<16|uint32(st.lost)<<24)
	dst = append(dst, st.configs[:st.configCount]...)
	for s := range x.bound.Shards {
		dst = append(dst, uint32(st.claims[s])|uint32(st.minted[s])<<8|uint32(st.executed[s])<<16|uint32(st.asked[s])<<24)
		dst = append(dst, pack(st.order[s][:]))
	}
	dst = append(dst, pack(st.versions[:]))
	dst = st.appendDisasters(dst, &x.bound)
	dst = append(append(dst, uint32(len(st.facts))), st.facts...)
	if x.full {
		for i := range x.bound.Groups {
			dst = append(append(dst, uint32(len(st.past[i]))), st.past[i]...)
		}
	}
	return dst
}

// pack puts small numbers into one word: OpsMax times 5 bits.
func pack(list []uint8) (w uint32) {
	for i, v := range list {
		w |= uint32(v&31) << (5 * i)
	}
	return w
}

func unpack(w uint32, list []uint8) {
	for i := range list {
		list[i] = uint8(w >> (5 * i) & 31)
	}
}

// readWords reads what appendWords wrote and returns the rest.
func (x *explorer) readWords(w []uint32, st *state) []uint32 {
	next := func() uint32 { v := w[0]; w = w[1:]; return v }
	for i := range x.bound.Groups {
		st.locals[i] = next()
		st.lives[i] = uint8(next())
	}
	v := next()
	st.configCount, st.emptied, st.faults = uint8(v), uint8(v>>8), uint8(v>>16)
	st.lost = uint8(v >> 24)
	clear(st.configs[:])
	w = w[copy(st.configs[:st.configCount], w):]
	for s := range x.bound.Shards {
		v := next()
		st.claims[s], st.minted[s], st.executed[s] = incID(v), uint8(v>>8), uint8(v>>16)
		st.asked[s] = uint8(v >> 24)
		unpack(next(), st.order[s][:])
	}
	unpack(next(), st.versions[:])
	w = st.readDisasters(w, &x.bound)
	n := next()
	st.facts = append(st.facts[:0], w[:n]...)
	w = w[n:]
	if x.full {
		for i := range x.bound.Groups {
			n := next()
			st.past[i] = append(st.past[i][:0], w[:n]...)
			w = w[n:]
		}
	}
	return w
}

// fingerprint is the hash that tells states apart: 64 bits, so that among n
// states one is overlooked with a probability of about n²/2^65.
func (x *explorer) fingerprint(st *state) uint64 {
	w := x.appendWords(x.scratch.words[:0], st)
	x.scratch.words = w
	if !x.full {
		for i := range x.bound.Groups {
			id := st.locals[i]
			w[2*i] = x.reduce(id, x.stale(st, x.locals[id]))
		}
	}
	return hashWords(w)
}

// projection is the fingerprint without what may be delivered: what a full and
// a pruned search must agree on.
func (x *explorer) projection(st *state) uint64 {
	var bare state
	st.copyTo(&bare)
	bare.facts = nil
	w := x.appendWords(nil, &bare)
	for i := range x.bound.Groups {
		l := x.locals[st.locals[i]]
		whole := x.sumLocal(l, x.stale(st, l))
		w[2*i] = uint32(hashBytes(whole[:]))
	}
	for i := range int(st.configCount) {
		w[2*x.bound.Groups+1+i] = uint32(hashBytes(x.configs[st.configs[i]].encoded))
	}
	if x.full { // without the lengths of past, which is not in bare
		w = w[:len(w)-x.bound.Groups]
		for _, p := range bare.past {
			w = w[:len(w)-len(p)]
		}
	}
	return hashWords(w)
}

const (
	hashSeed  = 0x243f6a8885a308d3
	hashPrime = 0x9e3779b97f4a7c15
)

func mix(h, w uint64) uint64 {
	high, low := bits.Mul64(h^w, hashPrime)
	return high ^ low ^ bits.RotateLeft64(h, 23)
}

func hashWords(words []uint32) uint64 {
	h := uint64(hashSeed) + uint64(len(words))
	for _, w := range words {
		h = mix(h, uint64(w)+hashSeed)
	}
	if h = mix(h, h>>32); h == 0 {
		h = 1 // 0 marks an empty place in the set
	}
	return h
}

func hashBytes(b []byte) uint64 {
	h := uint64(hashSeed) + uint64(len(b))
	for _, c := range b {
		h = mix(h, uint64(c)+hashSeed)
	}
	return h
}

// config is one configuration's content.
type config struct {
	config  *shardcfg.Config
	encoded []byte
	owners  [ShardsMax]incID
}

// configBytes returns a config's encoding; nil for none.
func (x *explorer) configBytes(id uint32) []byte {
	if id == 0 {
		return nil
	}
	return x.configs[id].encoded
}

func (x *explorer) internConfig(c *shardcfg.Config) uint32 {
	encoded := shardcfg.AppendConfig(nil, c)
	if id, ok := x.configIDs[string(encoded)]; ok {
		return id
	}
	entry := &config{config: c, encoded: encoded}
	for s := range c.Shards {
		_, inc := c.Owner(shardcfg.ShardID(s))
		entry.owners[s] = incOf(inc)
	}
	id := uint32(len(x.configs))
	x.configs = append(x.configs, entry)
	x.configIDs[string(encoded)] = id
	return id
}

// makeConfig returns the next config of a state, with these owners by seat.
func (x *explorer) makeConfig(st *state, owners []int) uint32 {
	ref := uint64(st.retired)<<4 | uint64(st.configCount)
	for seat := range x.bound.Groups {
		ref = ref<<4 | uint64(st.lives[seat])
	}
	for _, seat := range owners {
		ref = ref<<4 | uint64(seat)
	}
	if id, ok := x.made[ref]; ok {
		return id
	}
	id := x.newConfig(st, owners)
	x.made[ref] = id
	return id
}

func (x *explorer) newConfig(st *state, owners []int) uint32 {
	c := &shardcfg.Config{Num: shardcfg.ConfigNum(st.configCount) + 1,
		Groups: map[shardcfg.GroupID]shardcfg.Group{}, Pins: map[shardcfg.ShardID]shardcfg.Pin{}}
	for seat := range x.bound.Groups {
		id := st.inc(seat).identity()
		c.Groups[id.Peer.Group] = shardcfg.Group{Incarnation: id.Peer.Incarnation, Replicas: id.Replicas, Weight: 1, State: shardcfg.GroupMember}
	}
	for _, seat := range owners {
		c.Shards = append(c.Shards, shardcfg.GroupID(seat+1))
	}
	for id := range incID(seatsMax * livesMax) {
		if st.isRetired(id) {
			c.Retired = append(c.Retired, id.peer().Incarnation)
		}
	}
	return x.internConfig(c)
}
