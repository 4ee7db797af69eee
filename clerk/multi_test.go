package clerk_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// Many keys at once travel in few messages, and each has its own result.
func TestMulti(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		putAll(t, f, c)
		var pairs []clerk.Pair
		keys := [][]byte{nil, []byte("missing")}
		for i := range 1000 {
			key := fmt.Appendf(nil, "m%04d", i)
			pairs = append(pairs, clerk.Pair{Key: key, Value: key})
			keys = append(keys, key)
		}
		before := f.messages
		for i, r := range c.PutMulti(t.Context(), pairs) {
			if r.Err != nil || r.Version == 0 {
				t.Fatalf("pair %d: %+v", i, r)
			}
		}
		if n := f.messages - before; n > 300 {
			t.Errorf("1000 puts travelled in %d messages", n)
		}
		results := c.GetMulti(t.Context(), keys)
		if !errors.Is(results[0].Err, clerk.ErrInvalid) || !errors.Is(results[1].Err, clerk.ErrNotFound) {
			t.Errorf("first results: %v, %v", results[0].Err, results[1].Err)
		}
		for i, r := range results[2:] {
			if r.Err != nil || !bytes.Equal(r.Value.Bytes, pairs[i].Key) {
				t.Fatalf("key %s: %q, %v", pairs[i].Key, r.Value.Bytes, r.Err)
			}
		}
	})
}

// The largest values pass, many at once, and within the bounds of a message.
func TestLargeValues(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, func(config *clerk.Config) { config.InFlightMax = 4 })
		large := bytes.Repeat([]byte("x"), shardcfg.ValueBytesMax)
		var pairs []clerk.Pair
		var keys [][]byte
		for i := range 6 {
			keys = append(keys, fmt.Appendf(nil, "{one}%d", i))
			pairs = append(pairs, clerk.Pair{Key: keys[i], Value: large})
		}
		for _, r := range c.PutMulti(t.Context(), pairs) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		for _, r := range c.GetMulti(t.Context(), keys) {
			if r.Err != nil || !bytes.Equal(r.Value.Bytes, large) {
				t.Fatalf("%d bytes, %v", len(r.Value.Bytes), r.Err)
			}
		}
	})
}

// Operations beyond the bound wait for a slot within their deadlines, and a
// frozen shard holds up nothing but its own.
func TestInFlightBound(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, func(config *clerk.Config) { config.InFlightMax = 2 })
		mustPut(t, c, "k", "v")
		f.setFault(func(string, *kvpb.Operation) fault { return faultBusy })
		refused := 0
		for _, r := range c.GetMulti(t.Context(), [][]byte{{1}, {2}, {3}, {4}, {5}}) {
			if !errors.Is(r.Err, clerk.ErrNotDone) || !errors.Is(r.Err, clerk.ErrTimeout) {
				t.Errorf("%v", r.Err)
			}
			refused++
		}
		f.setFault(nil)
		mustGet(t, c, "k", "v")
		if refused != 5 {
			t.Errorf("%d results", refused)
		}
	})
}
