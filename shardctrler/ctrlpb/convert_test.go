package ctrlpb

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

func sample() *shardcfg.Config {
	return &shardcfg.Config{
		Num:    12,
		Shards: []shardcfg.GroupID{1, 1, 2, 0},
		Groups: map[shardcfg.GroupID]shardcfg.Group{
			1: {Incarnation: shardcfg.Incarnation{1}, Replicas: []string{"a:1", "b:1"}, Weight: 2, State: shardcfg.GroupMember},
			2: {Replicas: []string{"c:1"}, Weight: 1, State: shardcfg.GroupMember},
			3: {Incarnation: shardcfg.Incarnation{3}, Replicas: []string{"d:1"}, Weight: 1, State: shardcfg.GroupLeaving},
		},
		Pins:    map[shardcfg.ShardID]shardcfg.Pin{2: {Group: 2, MaxPauseMS: 70}},
		Retired: []shardcfg.Incarnation{{7}, {8}},
	}
}

func TestConfigsAndDeltasSurviveTheWire(t *testing.T) {
	a, b := sample(), sample()
	b.Num, b.Shards[3], b.Shards[0] = 15, 1, 2
	delete(b.Groups, 3)
	delete(b.Pins, 2)
	b.Pins[0] = shardcfg.Pin{Group: 2}
	b.Retired = append(b.Retired, shardcfg.Incarnation{9})
	got, err := ToConfig(wire(t, FromConfig(a), new(Config)))
	if err != nil || !got.Equal(a) {
		t.Fatalf("config: %+v, %v; want %+v", got, err, a)
	}
	d, err := ToDelta(wire(t, FromDelta(shardcfg.DeltaBetween(a, b)), new(Delta)), len(a.Shards))
	if err != nil {
		t.Fatal(err)
	}
	if got, err = d.Apply(a); err != nil || !got.Equal(b) {
		t.Fatalf("delta led to %+v, %v; want %+v", got, err, b)
	}
}

func wire[M proto.Message](t *testing.T, from, into M) M {
	t.Helper()
	b, err := proto.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
	return into
}

func TestMalformedConfigsAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"shard count":       func(m *Config) { m.ShardCount = 3 },
		"shard count, huge": func(m *Config) { m.ShardCount = 1 << 31 },
		"too many owners":   func(m *Config) { m.Shards[0].Length = 1 << 31 },
		"too few owners":    func(m *Config) { m.Shards = m.Shards[1:] },
		"group 0":           func(m *Config) { m.Groups[0].Gid = 0 },
		"group gone":        func(m *Config) { m.Groups[0].State = GroupState_GONE },
		"incarnation":       func(m *Config) { m.Groups[0].Incarnation = []byte{1} },
		"pin":               func(m *Config) { m.Pins[0].Shard = 4 },
		"retired":           func(m *Config) { m.Retired[0] = nil },
	} {
		m := FromConfig(sample())
		spoil(m)
		if c, err := ToConfig(m); !errors.Is(err, shardcfg.ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

// FuzzMessages: no message makes the conversions panic or claim memory, and
// what they accept they also write.
func FuzzMessages(f *testing.F) {
	for _, m := range []proto.Message{FromConfig(sample()), FromDelta(shardcfg.DeltaBetween(&shardcfg.Config{Shards: make([]shardcfg.GroupID, 4)}, sample()))} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var cm Config
		if proto.Unmarshal(b, &cm) == nil {
			if c, err := ToConfig(&cm); err == nil {
				if again, err := ToConfig(FromConfig(c)); err != nil || !again.Equal(c) {
					t.Fatalf("accepted %+v, then %+v, %v", c, again, err)
				}
			}
		}
		var dm Delta
		if proto.Unmarshal(b, &dm) == nil {
			if d, err := ToDelta(&dm, 4); err == nil {
				if _, err := d.Apply(&shardcfg.Config{Num: d.From, Shards: make([]shardcfg.GroupID, 4)}); err != nil {
					t.Fatalf("accepted %+v, which can't be applied: %v", d, err)
				}
			}
		}
	})
}
