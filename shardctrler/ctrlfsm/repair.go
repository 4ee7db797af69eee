package ctrlfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// GenerationMax bounds the repairs of one shard: a generation has its own range of
// revisions, see kvfsm.Create.
const GenerationMax = 1<<16 - 1

// planRetire takes a destroyed incarnation's group out of the configuration, and
// names the incarnation as retired.
func planRetire(v View, c *shardcfg.Config, r Retire) (*Refusal, error) {
	if c.IsRetired(r.Incarnation) {
		return nil, nil
	}
	if _, known, err := v.Registered(r.Incarnation); !known || err != nil {
		return refuse(UnknownGroup, "no group was ever %v", r.Incarnation), err
	}
	if len(c.Retired) >= shardcfg.RetiredMax {
		return refuse(BadRequest, "%d incarnations are retired already", len(c.Retired)), nil
	}
	gid, listed := c.GroupOf(r.Incarnation)
	if !listed {
		return refuse(UnknownGroup, "%v left, and holds nothing that could be lost", r.Incarnation), nil
	}
	c.Retired = append(c.Retired, r.Incarnation)
	slices.SortFunc(c.Retired, shardcfg.Incarnation.Compare)
	unpinAll(c, gid)
	delete(c.Groups, gid)
	c.Shards = shardcfg.Assign(c)
	return nil, nil
}

// A Verdict is what became of one case of a RepairShards.
type Verdict struct {
	Shard shardcfg.ShardID
	Fate  Fate
	// Group is who the fate concerns, see Judge.
	Group shardcfg.Incarnation
	// Granted is the repair; its Gen is 0 if none was granted.
	Granted Repair
}

// Verdicts judges the cases of a RepairShards without granting anything.
func Verdicts(v View, c RepairShards) ([]Verdict, *Refusal, error) {
	latest, err := v.Latest()
	if err != nil {
		return nil, nil, err
	}
	return verdicts(v, latest, c)
}

// verdicts judges c. It refuses it if the answers are not those that latest calls
// for, or are older than another repair of the same shard: then the groups must be
// asked again.
func verdicts(v View, latest *shardcfg.Config, c RepairShards) ([]Verdict, *Refusal, error) {
	if latest.Num != c.Num {
		return nil, refuse(StaleReport, "the groups were asked about config %d, and the latest is %d", c.Num, latest.Num), nil
	}
	for _, gid := range latest.GroupIDs() {
		inc := latest.Groups[gid].Incarnation
		if _, asked := slices.BinarySearchFunc(c.Asked, inc, shardcfg.Incarnation.Compare); !asked && !inc.IsZero() {
			return nil, refuse(GroupSilent, "group %d did not answer", gid), nil
		}
	}
	out := make([]Verdict, 0, len(c.Cases))
	for _, k := range c.Cases {
		if int(k.Shard) >= len(latest.Shards) {
			return nil, refuse(BadRequest, "there is no shard %d of %d", k.Shard, len(latest.Shards)), nil
		}
		claimer, err := v.ClaimedBy(k.Shard)
		if err != nil {
			return nil, nil, err
		}
		last, err := v.Repair(k.Shard)
		if err != nil {
			return nil, nil, err
		}
		if last.Gen != k.LastGen {
			return nil, refuse(StaleReport, "shard %d was repaired meanwhile", k.Shard), nil
		}
		fate, group := Judge(latest, Case{Shard: k.Shard, Claimer: claimer, Last: last, Answers: k.Answers})
		out = append(out, Verdict{Shard: k.Shard, Fate: fate, Group: group})
	}
	return out, nil, nil
}

// repair grants what is repairable, each in the next generation of its shard: the
// controllers count them, because a group that has missed one would count wrong.
func (s *step) repair(c RepairShards) (Result, error) {
	res := Result{Num: s.latest.Num}
	list, ref, err := verdicts(s.v, s.latest, c)
	if err != nil || ref != nil {
		res.Refusal = ref
		return res, err
	}
	for i := range list {
		v := &list[i]
		if !v.Fate.Repairable(c.LossAccepted) || c.Cases[i].LastGen >= GenerationMax {
			continue
		}
		v.Granted = Repair{Group: v.Group, Gen: c.Cases[i].LastGen + 1}
		if v.Fate == FateThawed {
			v.Granted.Frozen = epochOf(c.Cases[i].Answers, v.Group)
		}
		if err := s.b.Set(repairKey(v.Shard), encodeRepair(v.Granted)); err != nil {
			return Result{}, err
		}
		s.meta.claims++
	}
	res.Repairs = list
	return res, nil
}

// Repair returns the last repair that was granted for a shard; its Gen is 0 if
// there was none.
func (v View) Repair(s shardcfg.ShardID) (Repair, error) {
	b, ok, err := v.r.Get(repairKey(s))
	if err != nil || !ok {
		return Repair{}, err
	}
	return decodeRepair(b)
}

// Repairs returns the last repair of every shard that had one, by shard.
func (v View) Repairs() (out map[shardcfg.ShardID]Repair, err error) {
	it, err := v.r.Iterate([]byte{prefixRepair}, []byte{prefixRepair + 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	out = map[shardcfg.ShardID]Repair{}
	for it.Next() {
		if len(it.Key()) != 3 {
			return nil, fmt.Errorf("%w: repair under key %x", ErrState, it.Key())
		}
		r, err := decodeRepair(it.Value())
		if err != nil {
			return nil, err
		}
		out[shardcfg.ShardID(binary.BigEndian.Uint16(it.Key()[1:]))] = r
	}
	return out, nil
}

const repairBytes = 16 + 4 + 8 + 4

func encodeRepair(r Repair) []byte {
	b := binary.BigEndian.AppendUint32(slices.Clone(r.Group[:]), r.Frozen.Gen)
	b = binary.BigEndian.AppendUint64(b, r.Frozen.Num)
	return binary.BigEndian.AppendUint32(b, r.Gen)
}

func decodeRepair(b []byte) (r Repair, err error) {
	if len(b) != repairBytes {
		return r, fmt.Errorf("%w: repair of %d bytes", ErrState, len(b))
	}
	copy(r.Group[:], b)
	r.Frozen = shardcfg.Epoch{Gen: binary.BigEndian.Uint32(b[16:]), Num: binary.BigEndian.Uint64(b[20:])}
	r.Gen = binary.BigEndian.Uint32(b[28:])
	return r, nil
}

func repairKey(s shardcfg.ShardID) []byte {
	return binary.BigEndian.AppendUint16([]byte{prefixRepair}, uint16(s))
}
