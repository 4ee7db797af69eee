package shardkv

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// allOf asks for all shards, each from the start.
func allOf(shards int) []*kvpb.ScanFrom {
	from := make([]*kvpb.ScanFrom, shards)
	for i := range from {
		from[i] = &kvpb.ScanFrom{Shard: uint32(i)}
	}
	return from
}

func scanNow(t *testing.T, s *Server, r *kvpb.ScanRequest) *kvpb.ScanResponse {
	t.Helper()
	response, err := s.Scan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if n := proto.Size(response); n > shardcfg.MessageBytesMax {
		t.Errorf("the response has %d bytes, gRPC sends at most %d", n, shardcfg.MessageBytesMax)
	}
	return response
}

// pagesOf says in words what pages hold.
func pagesOf(r *kvpb.ScanResponse) string {
	var words []string
	for _, p := range r.GetPages() {
		word := fmt.Sprintf("%d %v %d", p.GetShard(), p.GetOutcome().GetCode(), len(p.GetRecords()))
		if p.GetEnd() {
			word += " end"
		}
		words = append(words, word)
	}
	return strings.Join(words, "; ")
}

// putIn puts n keys of a size into a shard.
func putIn(t *testing.T, s *Server, shard shardcfg.ShardID, n, size int) (keys []string) {
	t.Helper()
	value := strings.Repeat("v", size)
	for i := 0; len(keys) < n; i++ {
		key := fmt.Sprintf("p%04d", i)
		if shardcfg.ShardOf([]byte(key), fakeShards) != shard {
			continue
		}
		keys = append(keys, key)
		if o := executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp(key, value)}}); o[0].GetCode() != kvpb.Code_OK {
			t.Fatal(o)
		}
	}
	return keys
}

// Claim: one request reads several shards: each gets its page, in the order of
// asking, until the records that were asked for are there; a shard that was cut
// off or left out goes on behind its last key.
func TestScanOfSeveralShards(t *testing.T) {
	s, _ := newFake(t, Limits{})
	for shard := range shardcfg.ShardID(3) { // shard 3 stays empty
		putIn(t, s, shard, 4, 1)
	}
	r := &kvpb.ScanRequest{Prefix: []byte("p"), Limit: 6, From: allOf(fakeShards)}
	var all []string
	for range 10 {
		response := scanNow(t, s, r)
		for _, p := range response.GetPages() {
			for _, rec := range p.GetRecords() {
				all = append(all, string(rec.GetKey()))
				r.From[0].After = rec.GetKey()
			}
			if p.GetEnd() {
				r.From = r.From[1:]
			}
		}
		if want := map[int]string{6: "0 OK 4 end; 1 OK 2", 12: "1 OK 2 end; 2 OK 4 end"}[len(all)]; len(r.From) > 0 && pagesOf(response) != want {
			t.Errorf("pages %q, want %q", pagesOf(response), want)
		}
		if len(r.From) == 0 {
			break
		}
	}
	if len(all) != 12 || len(r.From) != 0 {
		t.Errorf("the scan met %d keys, want 12: %q; left are %v", len(all), all, r.From)
	}
	if got, want := pagesOf(scanNow(t, s, &kvpb.ScanRequest{From: allOf(fakeShards)})), "0 OK 4 end; 1 OK 4 end; 2 OK 4 end; 3 OK 0 end"; got != want {
		t.Errorf("a scan of all: %q, want %q", got, want)
	}
}

// Claim: the pages of one answer are bounded in bytes together, and a record of
// any legal size still travels.
func TestScanAnswerIsBounded(t *testing.T) {
	s, _ := newFake(t, Limits{})
	for shard := range shardcfg.ShardID(3) {
		putIn(t, s, shard, 3, 300<<10)
	}
	putIn(t, s, 3, 1, shardcfg.ValueBytesMax)
	if got, want := pagesOf(scanNow(t, s, &kvpb.ScanRequest{From: allOf(fakeShards)})), "0 OK 3 end; 1 OK 1"; got != want {
		t.Errorf("pages %q, want %q", got, want)
	}
	if got, want := pagesOf(scanNow(t, s, &kvpb.ScanRequest{From: []*kvpb.ScanFrom{{Shard: 2}, {Shard: 3}}})), "2 OK 3 end; 3 OK 1 end"; got != want {
		t.Errorf("pages %q, want %q", got, want)
	}
}

// Claim: a moving shard does not hold back the pages of the others; a request
// that nothing can be answered of waits.
func TestScanBesideAMovingShard(t *testing.T) {
	s, f := newFake(t, Limits{})
	putIn(t, s, 1, 1, 1)
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(2, 1, fakeShards, 0, 3)})
	f.freeze(t, 0)
	f.freeze(t, 3)
	f.propose(t, &kvfsm.Drop{Shard: 3, Epoch: shardcfg.Epoch{Num: 1}})
	response := scanNow(t, s, &kvpb.ScanRequest{From: allOf(fakeShards)})
	if got, want := pagesOf(response), "0 BUSY 0; 1 OK 1 end; 2 OK 0 end; 3 WRONG_GROUP 0"; got != want {
		t.Errorf("pages %q, want %q", got, want)
	}
	if to := response.GetPages()[3].GetOutcome().GetRedirect(); to.GetGid() != 2 {
		t.Errorf("the page of the shard that was passed on: redirect %v, want to group 2", to)
	}
	answer := make(chan string)
	go func() {
		r, err := s.Scan(context.Background(), &kvpb.ScanRequest{From: allOf(1)})
		answer <- fmt.Sprint(pagesOf(r), err)
	}()
	for s.parking.count() == 0 {
		time.Sleep(time.Millisecond) // poll
	}
	f.propose(t, &kvfsm.Drop{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}})
	if got, want := <-answer, "0 WRONG_GROUP 0<nil>"; got != want {
		t.Errorf("the request that waited got %q, want %q", got, want)
	}
	if s.parking.count() != 0 {
		t.Errorf("%d requests are still parked", s.parking.count())
	}
}

// Claim: scans that wait for a frozen shard, however many, take nothing of the memory
// that the requests for other shards need; and what they hold is given back.
func TestWaitingScansHoldLittle(t *testing.T) {
	s, f := newFake(t, Limits{Bytes: 2 * scanBytesMax})
	putIn(t, s, 1, 1, 1)
	f.propose(t, &kvfsm.Adopt{Cluster: fakeCluster, Config: fakeConfigOf(2, 1, fakeShards, 0)})
	f.freeze(t, 0)
	const waiting = 8
	answers := make(chan string, waiting)
	for i := range waiting {
		go func() {
			r, err := s.Scan(context.Background(), &kvpb.ScanRequest{From: allOf(1)})
			answers <- fmt.Sprint(r.GetOutcome().GetCode(), " ", pagesOf(r), err)
		}()
		for s.parking.count() <= i {
			select {
			case answer := <-answers:
				t.Fatalf("a scan of the frozen shard, beside %d others: %q, want it to wait", i, answer)
			case <-time.After(time.Millisecond): // poll
			}
		}
	}
	if got, want := pagesOf(scanNow(t, s, &kvpb.ScanRequest{From: []*kvpb.ScanFrom{{Shard: 1}}})), "1 OK 1 end"; got != want {
		t.Errorf("a scan of another shard: %q, want %q", got, want)
	}
	if o := executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{getOp(keyIn(1))}})[0]; o.GetCode() == kvpb.Code_BUSY {
		t.Errorf("a get of another shard: %v", o)
	}
	f.propose(t, &kvfsm.Drop{Shard: 0, Epoch: shardcfg.Epoch{Num: 1}})
	for range waiting {
		if got := <-answers; got != "OK 0 WRONG_GROUP 0<nil>" {
			t.Errorf("a scan that waited got %q", got)
		}
	}
	if n, bytes := s.total.inFlight(); n != 0 || bytes != 0 {
		t.Errorf("%d requests and %d bytes are left in flight", n, bytes)
	}
}

// Claim: bad scans are refused as a whole, before anything is read.
func TestScanIsChecked(t *testing.T) {
	s, _ := newFake(t, Limits{})
	long := make([]byte, shardcfg.KeyBytesMax+1)
	for name, r := range map[string]*kvpb.ScanRequest{
		"no shard":        {},
		"unknown shard":   {From: []*kvpb.ScanFrom{{Shard: 0}, {Shard: fakeShards}}},
		"too many shards": {From: make([]*kvpb.ScanFrom, shardcfg.ShardCountMax+1)},
		"long prefix":     {Prefix: long, From: allOf(1)},
		"long start":      {From: []*kvpb.ScanFrom{{After: long}}},
	} {
		if response := scanNow(t, s, r); response.GetOutcome().GetCode() != kvpb.Code_INVALID || len(response.GetPages()) > 0 {
			t.Errorf("%s: %v", name, response)
		}
	}
}

// A countingStore counts the bytes of the values that are read through its
// snapshots.
type countingStore struct {
	store.Store
	read *int
}

func (s countingStore) NewSnapshot() (store.Snapshot, error) {
	snapshot, err := s.Store.NewSnapshot()
	return countingSnapshot{snapshot, s.read}, err
}

type countingSnapshot struct {
	store.Snapshot
	read *int
}

func (s countingSnapshot) Get(key []byte) ([]byte, bool, error) {
	v, ok, err := s.Snapshot.Get(key)
	*s.read += len(v)
	return v, ok, err
}

func (s countingSnapshot) Iterate(lower, upper []byte) (store.Iterator, error) {
	it, err := s.Snapshot.Iterate(lower, upper)
	return countingIterator{it, s.read}, err
}

type countingIterator struct {
	store.Iterator
	read *int
}

func (i countingIterator) Value() []byte {
	v := i.Iterator.Value()
	*i.read += len(v)
	return v
}

// Claim: a page of keys is bounded by what it reads, not only by what it sends.
func TestScanForKeysReadsLittle(t *testing.T) {
	s, f := newFake(t, Limits{})
	want := putIn(t, s, 0, 40, 1<<20)
	read := 0
	f.store = countingStore{f.store, &read}
	r := &kvpb.ScanRequest{KeysOnly: true, From: allOf(1)}
	for met := 0; ; {
		read = 0
		page := scanNow(t, s, r).GetPages()[0]
		if read > 3<<20 {
			t.Errorf("a page of %d keys, without values, read %d bytes of the store", len(page.GetRecords()), read)
		}
		for _, rec := range page.GetRecords() {
			r.From[0].After = rec.GetKey()
			met++
		}
		if page.GetEnd() {
			if met != len(want) {
				t.Errorf("%d keys, want %d", met, len(want))
			}
			return
		}
	}
}
