package clerk_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// inLargeBubble runs a test on three groups and 1,024 shards, whose leaders a clerk
// knows.
func inLargeBubble(t *testing.T, test func(t *testing.T, f *fakeCluster, c *clerk.Clerk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(3, 3, 1024)
		t.Cleanup(f.close)
		f.scanRecords = 1000
		c := f.open(t, nil)
		putAll(t, f, c)
		test(t, f, c)
	})
}

// requests counts those for pages that a scan makes; it returns the keys too.
func requests(t *testing.T, f *fakeCluster, c *clerk.Clerk, prefix string, options ...clerk.ScanOption) (n int, keys []string) {
	t.Helper()
	f.mu.Lock()
	before := f.scans
	f.mu.Unlock()
	for e, err := range c.Scan(t.Context(), []byte(prefix), options...) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(e.Key))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.scans - before, keys
}

// A prefix with few keys costs one request for each group, however many shards there
// are; one without any as well.
func TestSmallPrefix(t *testing.T) {
	inLargeBubble(t, func(t *testing.T, f *fakeCluster, c *clerk.Clerk) {
		for i := range 100 {
			mustPut(t, c, fmt.Sprintf("few/%d", i), "v")
		}
		for _, options := range [][]clerk.ScanOption{nil, {clerk.KeysOnly()}, {clerk.Ordered()}, {clerk.Limit(100)}} {
			if n, keys := requests(t, f, c, "few/", options...); n > 3 || len(keys) != 100 {
				t.Errorf("%d keys took %d requests", len(keys), n)
			}
			if n, keys := requests(t, f, c, "none/", options...); n > 3 || len(keys) != 0 {
				t.Errorf("no keys, but %v, took %d requests", keys, n)
			}
		}
		if n, keys := requests(t, f, c, "{few}/"); n != 1 || len(keys) != 0 {
			t.Errorf("a prefix of one shard took %d requests", n)
		}
	})
}

// A scan takes hardly more requests than its answers have to be, and reads ahead of
// its caller within bounds.
func TestScanReadsAheadWithinBounds(t *testing.T) {
	inLargeBubble(t, func(t *testing.T, f *fakeCluster, c *clerk.Clerk) {
		var pairs []clerk.Pair
		for i := range 8_000 {
			pairs = append(pairs, clerk.Pair{Key: fmt.Appendf(nil, "many/%d", i), Value: make([]byte, 1200)})
		}
		for _, r := range c.PutMulti(t.Context(), pairs) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		f.scanRecords = 400
		if n, keys := requests(t, f, c, "many/"); n > 20+2*3 || len(keys) != len(pairs) {
			t.Errorf("%d keys took %d requests, 400 to an answer", len(keys), n)
		}
		for _, dead := range []bool{false, true} {
			if dead {
				f.stop(f.shards[0].holder.addresses...)
			}
			f.mu.Lock()
			before := f.scanned
			f.mu.Unlock()
			for _, err := range c.Scan(t.Context(), []byte("many/")) {
				if dead != (err != nil) {
					t.Fatalf("group of the first shard dead %v: %v", dead, err)
				}
				elapse(time.Minute) // a slow caller
				break
			}
			f.mu.Lock()
			if n := f.scanned - before; n > 2*3*f.scanRecords {
				t.Errorf("first group dead %v: %d records came", dead, n)
			}
			f.mu.Unlock()
		}
	})
}

// In order, a scan yields every key that is present throughout exactly once, in
// ascending order over all shards, although shards move meanwhile; a cursor
// continues it.
func TestOrderedScan(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fakeCluster) {
		c := f.open(t, nil)
		var want []string
		for i := range 500 {
			want = append(want, fmt.Sprintf("p/%03d", i))
			mustPut(t, c, want[i], "v")
		}
		var got []string
		var from clerk.Cursor
		for more := true; more; {
			more = false
			for e, err := range c.Scan(t.Context(), []byte("p/"), clerk.Ordered(), clerk.From(from), clerk.Limit(77)) {
				if err != nil {
					t.Fatal(err)
				}
				got, from, more = append(got, string(e.Key)), e.Cursor(), true
				s := (int(e.Shard) + len(got)) % len(f.shards)
				f.move(s, other(f, f.shards[s].holder), len(got)%2 == 0)
				if len(got) > len(want) {
					t.Fatalf("more keys than there are: %s again", e.Key)
				}
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d keys: %v", len(got), got)
		}
		for i := range 20 {
			mustPut(t, c, fmt.Sprintf("{tag}%02d", i), "v")
		}
		got = nil
		for e, err := range c.Scan(t.Context(), []byte("{tag}"), clerk.Ordered(), clerk.From(clerk.Cursor{After: []byte("{tag}09")})) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(e.Key))
		}
		if len(got) != 10 || got[0] != "{tag}10" {
			t.Errorf("behind {tag}09: %v", got)
		}
	})
}

// What comes before the shards of a dead group is yielded. The scan waits for those
// as long as a call may, from when it is their turn, however early they were asked
// for; if the group comes back in time, nothing is missing.
func TestScanWaitsForDeadGroup(t *testing.T) {
	for _, back := range []bool{true, false} {
		inBubble(t, func(t *testing.T, f *fakeCluster) {
			c := f.open(t, nil)
			for i := range 400 {
				mustPut(t, c, fmt.Sprintf("k%d", i), "v")
			}
			dead := f.shards[1].holder
			f.stop(dead.addresses...)
			n, due := 0, time.Time{}
			for e, err := range c.Scan(t.Context(), []byte("k")) {
				if err != nil {
					if took := time.Since(due); back || took != clerk.TimeoutDefault || !errors.Is(err, clerk.ErrNotDone) || !errors.Is(err, clerk.ErrTimeout) {
						t.Errorf("back %v, after %v: %v", back, took, err)
					}
					break
				}
				if n++; e.Shard == 0 && due.IsZero() {
					elapse(time.Minute) // what was asked for ahead has failed by now
					due = time.Now()
					if back {
						time.AfterFunc(5*time.Second, func() { f.start(dead.addresses[0]) })
					}
				}
			}
			if first := len(f.keysLocked(0, "k", "")); back && n != 400 || !back && n != first {
				t.Errorf("back %v: %d entries; shard 0 has %d", back, n, first)
			}
		})
	}
}

// A server whose answer to a scan can't be right is not believed: pages of other
// shards, none at all, records that are out of order, were read already, or were not
// asked for. It is not asked again without a rest.
func TestWrongPages(t *testing.T) {
	const wrongMax = 500 // answers in five seconds
	first := func(r *kvpb.ScanResponse) *kvpb.ScanPage {
		i := slices.IndexFunc(r.GetPages(), func(p *kvpb.ScanPage) bool { return len(p.GetRecords()) > 1 })
		if i < 0 {
			return nil
		}
		return r.GetPages()[i]
	}
	for name, spoil := range map[string]func(*kvpb.ScanRequest, *kvpb.ScanResponse){
		"other shards": func(_ *kvpb.ScanRequest, r *kvpb.ScanResponse) { slices.Reverse(r.Pages) },
		"more than asked for": func(_ *kvpb.ScanRequest, r *kvpb.ScanResponse) {
			r.Pages = append(r.Pages, &kvpb.ScanPage{Outcome: &kvpb.Outcome{}})
		},
		"none": func(_ *kvpb.ScanRequest, r *kvpb.ScanResponse) { r.Pages = nil },
		"empty": func(_ *kvpb.ScanRequest, r *kvpb.ScanResponse) {
			for _, p := range r.Pages {
				p.Records, p.End = nil, false
			}
		},
		"without an outcome": func(_ *kvpb.ScanRequest, r *kvpb.ScanResponse) {
			for _, p := range r.Pages {
				p.Outcome = nil
			}
		},
		"out of order": func(_ *kvpb.ScanRequest, r *kvpb.ScanResponse) {
			if p := first(r); p != nil {
				slices.Reverse(p.Records)
			}
		},
		"twice": func(_ *kvpb.ScanRequest, r *kvpb.ScanResponse) {
			if p := first(r); p != nil {
				p.Records = append(p.Records, p.Records[len(p.Records)-1])
			}
		},
		"from the start again": func(q *kvpb.ScanRequest, r *kvpb.ScanResponse) {
			for i, p := range r.Pages {
				if after := q.GetFrom()[i].GetAfter(); len(after) > 0 {
					p.Records = append([]*kvpb.Record{{Key: after, Value: []byte("v"), Version: 1}}, p.Records...)
				}
			}
		},
		"of another prefix": func(q *kvpb.ScanRequest, r *kvpb.ScanResponse) {
			for _, p := range r.Pages {
				p.Records = append(p.Records, &kvpb.Record{Key: []byte("z"), Version: 1})
			}
		},
	} {
		inBubble(t, func(t *testing.T, f *fakeCluster) {
			c := f.open(t, nil)
			var want []string
			for i := range 100 {
				want = append(want, fmt.Sprintf("k/%02d", i))
				mustPut(t, c, want[i], "v")
			}
			f.mu.Lock()
			start, wrong := time.Now(), 0
			f.spoil = func(q *kvpb.ScanRequest, r *kvpb.ScanResponse) {
				before := proto.Clone(r)
				if spoil(q, r); !proto.Equal(before, r) && time.Since(start) < 5*time.Second && wrong <= wrongMax {
					wrong++
				} else {
					proto.Reset(r)
					proto.Merge(r, before)
				}
			}
			f.mu.Unlock()
			var got []string
			for e, err := range c.Scan(t.Context(), []byte("k/")) {
				if got = append(got, string(e.Key)); err != nil || len(got) > len(want) {
					t.Fatalf("pages %s: after %d keys: %q, %v", name, len(got), e.Key, err)
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if slices.Sort(got); !slices.Equal(got, want) || wrong == 0 || wrong > wrongMax {
				t.Errorf("pages %s: after %d wrong answers: %v", name, wrong, got)
			}
		})
	}
}

// What a scan yields is the caller's, and the cursor that it is given stays the
// caller's: who writes over either changes nothing of what comes.
func TestScanKeepsNoSliceOfItsCaller(t *testing.T) {
	for name, options := range map[string][]clerk.ScanOption{"by shards": nil, "ordered": {clerk.Ordered()}} {
		inBubble(t, func(t *testing.T, f *fakeCluster) {
			c := f.open(t, nil)
			var want []string
			for i := range 200 {
				want = append(want, fmt.Sprintf("k/%03d", i))
				mustPut(t, c, want[i], "v")
			}
			overwrite := func(b []byte) {
				for i := range b {
					b[i] = 'z'
				}
			}
			start := clerk.Cursor{After: []byte("k/")}
			scan := c.Scan(t.Context(), []byte("k/"), append(options, clerk.From(start))...)
			overwrite(start.After)
			var got, paged []string
			for e, err := range scan {
				if got = append(got, string(e.Key)); err != nil || len(got) > len(want) {
					t.Fatalf("%s: after %d keys: %q, %v", name, len(got), e.Key, err)
				}
				at := e.Cursor()
				overwrite(e.Key)
				if string(at.After) != got[len(got)-1] {
					t.Fatalf("%s: the cursor of %q is at %q by now", name, got[len(got)-1], at.After)
				}
			}
			for from, done := (clerk.Cursor{}), false; !done; {
				page, err := c.ScanPage(t.Context(), []byte("k/"), from)
				if err != nil || len(paged) > len(want) {
					t.Fatal(len(paged), err)
				}
				for _, e := range page.Entries {
					paged = append(paged, string(e.Key))
					overwrite(e.Key)
				}
				from, done = page.Next, page.Done
			}
			for _, keys := range [][]string{got, paged} {
				if slices.Sort(keys); !slices.Equal(keys, want) {
					t.Errorf("%s: %d of %d keys: %v", name, len(keys), len(want), keys)
				}
			}
		})
	}
}

// However long the keys are that were reached, a request stays small: shards that
// have no room in it are asked for in another.
func TestScanOfLongKeys(t *testing.T) {
	inLargeBubble(t, func(t *testing.T, f *fakeCluster, c *clerk.Clerk) {
		long := strings.Repeat("k", shardcfg.KeyBytesMax-8)
		var pairs []clerk.Pair
		for i := range 600 {
			pairs = append(pairs, clerk.Pair{Key: fmt.Appendf(nil, "%s%d", long, i)})
		}
		for _, r := range c.PutMulti(t.Context(), pairs) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		n := 0
		for _, err := range c.Scan(t.Context(), []byte("k"), clerk.Ordered(), clerk.From(clerk.Cursor{After: []byte(long)})) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if n != len(pairs) || f.scanRequestBytes > 1<<20+8<<10 {
			t.Errorf("%d of %d keys; the largest request had %d bytes", n, len(pairs), f.scanRequestBytes)
		}
	})
}
