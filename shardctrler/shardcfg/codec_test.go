package shardcfg

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func sample() *Config {
	return &Config{
		Num:    300,
		Shards: []GroupID{1, 1, 1, 0, 2, 2, 1, 1},
		Groups: map[GroupID]Group{
			2: {Replicas: []string{"b:1"}, Weight: 200, State: GroupMember},
			1: {Incarnation: Incarnation{0xAA, 15: 1}, Replicas: []string{"a:1", "a:2"}, Weight: 1, State: GroupMember},
			9: {Incarnation: Incarnation{0xBB}, Weight: 1, State: GroupLeaving},
		},
		Pins:    map[ShardID]Pin{7: {Group: 1, MaxPauseMS: 250}, 4: {Group: 2}},
		Retired: []Incarnation{{1}, {2}},
	}
}

// TestConfigEncodingNeverChanges holds the bytes that logs and disks contain.
func TestConfigEncodingNeverChanges(t *testing.T) {
	const golden = "01" + "ac02" + "08" + "0301" + "0100" + "0202" + "0201" +
		"03" +
		"010101aa000000000000000000000000000001" + "01" + "02" + "03613a31" + "03613a32" +
		"020100" + "c801" + "01" + "03623a31" +
		"090201bb000000000000000000000000000000" + "01" + "00" +
		"02" + "040200" + "0701fa01" +
		"02" + "01000000000000000000000000000000" + "02000000000000000000000000000000"
	if got := hex.EncodeToString(AppendConfig(nil, sample())); got != golden {
		t.Errorf("got\n%s, want\n%s", got, golden)
	}
}

// genAny draws a config with every feature of the encoding.
func genAny(t *rapid.T) *Config {
	c := genConfig(t)
	for _, gid := range c.GroupIDs() {
		g := c.Groups[gid]
		g.Replicas = rapid.SliceOfN(rapid.StringN(0, 20, AddressBytesMax), 0, 4).Draw(t, "replicas")
		if rapid.Bool().Draw(t, "bound") {
			g.Incarnation = Incarnation{byte(gid), 1}
		}
		c.Groups[gid] = g
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "retired") {
		c.Retired = append(c.Retired, Incarnation{byte(i), 7})
	}
	return c
}

func TestConfigsSurviveEncodingAndEqualOnesHaveEqualBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := genAny(t)
		enc := AppendConfig([]byte("prefix"), c)[len("prefix"):]
		got, err := DecodeConfig(enc)
		if err != nil {
			t.Fatal(err)
		}
		again := AppendConfig(nil, got)
		if !bytes.Equal(again, enc) {
			t.Fatalf("encoded again: %x, first %x", again, enc)
		}
		for i := range enc { // nothing decoded may alias the input
			enc[i] ^= 0xFF
		}
		if !got.Equal(c) || !slices.Equal(got.Shards, c.Shards) || !reflect.DeepEqual(got.Pins, c.Pins) || len(got.Groups) != len(c.Groups) {
			t.Fatalf("decoded %+v, want %+v", got, c)
		}
		if clone := c.Clone(); !clone.Equal(c) {
			t.Fatalf("clone %+v of %+v", clone, c)
		}
	})
}

func TestCutEncodingsAreRefused(t *testing.T) {
	enc := AppendConfig(nil, sample())
	for n := range enc {
		if _, err := DecodeConfig(enc[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("first %d of %d bytes: %v", n, len(enc), err)
		}
	}
	if _, err := DecodeConfig(append(enc, 0)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a byte more: %v", err)
	}
}

func FuzzDecodeConfig(f *testing.F) {
	f.Add(AppendConfig(nil, sample()))
	f.Add(AppendConfig(nil, &Config{Shards: make([]GroupID, ShardCountMax)}))
	f.Add(AppendConfig(nil, &Config{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeConfig(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if again := AppendConfig(nil, c); !bytes.Equal(again, b) {
			t.Fatalf("accepted %x, which is written %x", b, again)
		}
	})
}

func TestDeltasLeadFromOneConfigToAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genAny(t), genAny(t)
		b.Shards = append(b.Shards, make([]GroupID, ShardCountMax)...)[:len(a.Shards)]
		for s := range b.Pins {
			if int(s) >= len(b.Shards) {
				delete(b.Pins, s)
			}
		}
		b.Num = a.Num + 2
		b.Retired = append(b.Retired, a.Retired...)
		slices.SortFunc(b.Retired, Incarnation.Compare)
		b.Retired = slices.Compact(b.Retired)

		before := AppendConfig(nil, a)
		got, err := DeltaBetween(a, b).Apply(a)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(b) {
			t.Fatalf("delta leads to\n%+v, want\n%+v", got, b)
		}
		if !bytes.Equal(AppendConfig(nil, a), before) {
			t.Fatal("Apply changed its argument")
		}
		if _, err := DeltaBetween(a, b).Apply(b); !errors.Is(err, ErrDeltaMismatch) {
			t.Fatalf("applied to a config it does not start from: %v", err)
		}
	})
}

func TestCheckNamesWhatNoConfigMayHold(t *testing.T) {
	if err := sample().Check(); err != nil {
		t.Fatalf("a good config: %v", err)
	}
	for name, spoil := range map[string]func(*Config){
		"owner not listed":     func(c *Config) { c.Shards[0] = 77 },
		"owner leaving":        func(c *Config) { c.Shards[0] = 9 },
		"pin elsewhere":        func(c *Config) { c.Pins[0] = Pin{Group: 2} },
		"pin out of range":     func(c *Config) { c.Pins[8] = Pin{Group: 1} },
		"pause too long":       func(c *Config) { c.Pins[7] = Pin{Group: 1, MaxPauseMS: PauseMSMax + 1} },
		"incarnation retired":  func(c *Config) { c.Retired = []Incarnation{{0xBB}} },
		"incarnation twice":    func(c *Config) { c.Groups[3] = c.Groups[1] },
		"shard count":          func(c *Config) { c.Shards = c.Shards[:7] },
		"leaving, never bound": func(c *Config) { c.Groups[9] = Group{State: GroupLeaving} },
	} {
		c := sample()
		spoil(c)
		if c.Check() == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}
