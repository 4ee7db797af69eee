package clerk_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalkv/shoal/clerk"
)

// A scan yields every key that is present throughout exactly once, shard by
// shard in key order, although shards move between pages.
func TestScanWhileMoving(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		var want []string
		for i := range 200 {
			key := fmt.Sprintf("p/%03d", i)
			mustPut(t, c, key, "v"+key)
			want = append(want, key)
		}
		mustPut(t, c, "q", "other")
		slices.SortFunc(want, func(a, b string) int {
			if d := f.shardOf(a) - f.shardOf(b); d != 0 {
				return d
			}
			return slices.Compare([]byte(a), []byte(b))
		})
		var got []string
		for e, err := range c.Scan(t.Context(), []byte("p/")) {
			if err != nil {
				t.Fatal(err)
			}
			if string(e.Value) != "v"+string(e.Key) || e.Version == 0 {
				t.Fatalf("entry %q = %q, version %d", e.Key, e.Value, e.Version)
			}
			got = append(got, string(e.Key))
			s := (int(e.Shard) + len(got)) % len(f.shards)
			f.move(s, other(f, f.shards[s].holder), len(got)%2 == 0)
		}
		if !slices.Equal(got, want) {
			t.Errorf("scan yielded %d keys: %v", len(got), got)
		}
	})
}

// A cursor continues a scan exactly where it was left; limits hold; a prefix with
// a whole hash tag reads one shard.
func TestScanCursorAndTag(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		for i := range 40 {
			mustPut(t, c, fmt.Sprintf("a%02d", i), "v")
			mustPut(t, c, fmt.Sprintf("{tag}%02d", i), "v")
		}
		var all, parts []string
		for e, err := range c.Scan(t.Context(), []byte("a"), clerk.KeysOnly()) {
			if err != nil || e.Value != nil {
				t.Fatalf("%q: %v", e.Value, err)
			}
			all = append(all, string(e.Key))
		}
		var from clerk.Cursor
		for more := true; more; {
			more = false
			for e, err := range c.Scan(t.Context(), []byte("a"), clerk.From(from), clerk.Limit(7)) {
				if err != nil {
					t.Fatal(err)
				}
				parts, from, more = append(parts, string(e.Key)), e.Cursor(), true
			}
		}
		if len(all) != 40 || !slices.Equal(all, parts) {
			t.Errorf("at once %v, in parts %v", all, parts)
		}
		before, n := f.messages, 0
		for _, err := range c.Scan(t.Context(), []byte("{tag}"), clerk.PageLimit(3)) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if pages := f.messages - before; n != 40 || pages != 14 {
			t.Errorf("tagged scan: %d keys in %d pages", n, pages)
		}
		f.stop(f.groups[0].addresses...)
		f.stop(f.groups[1].addresses...)
		start := time.Now()
		for _, err := range c.Scan(t.Context(), nil) {
			if !errors.Is(err, clerk.ErrNotDone) || !errors.Is(err, clerk.ErrTimeout) || time.Since(start) != clerk.TimeoutDefault {
				t.Errorf("scan of a dead cluster, after %v: %v", time.Since(start), err)
			}
		}
	})
}
