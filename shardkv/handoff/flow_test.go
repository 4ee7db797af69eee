package handoff_test

import (
	"testing"
	"time"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/handoff"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// pageOf is a full page for the first want of a Fetch.
func pageOf(f handoff.Fetch) []kvfsm.Page {
	key := []byte{4, 'k'}
	p := kvfsm.Page{Shard: f.Wants[0].Shard, Mark: f.Wants[0].Mark, Next: kvfsm.Cursor{Key: key}}
	p.Items = []kvfsm.Item{{Key: key, Value: make([]byte, f.BytesMax-100)}}
	return []kvfsm.Page{p}
}

// While the log refuses them, pages do not pile up: what is at hand or on its way is
// bounded, so is the list that they are proposed as, and a page is proposed ever less
// often.
func TestPagesAtHandAreBounded(t *testing.T) {
	const shards, seconds = 200, 10
	f, p := newFetching(), handoff.DefaultParams()
	f.view.Config.Shards = make([]shardcfg.GroupID, shards)
	for s := range shards {
		f.view.Config.Shards[s] = 2
		f.stage(shardcfg.ShardID(s), kvfsm.PhaseLeaving, "a:1")
	}
	largest, atHand, proposed := 0, 0, map[shardcfg.ShardID]int{}
	for range 100 * seconds {
		f.now += 10 * time.Millisecond
		a, err := f.driver.Step(f.now, f.view)
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, c := range a.Copies {
			chunk := c.(*kvfsm.Chunk)
			size += len(chunk.Items[0].Value)
			proposed[chunk.Shard]++
			f.driver.Proposed(f.now, c, kvfsm.Verdict{}, raftgroup.ErrBusy)
		}
		largest = max(largest, size)
		for _, fetch := range a.Fetches {
			atHand += fetch.BytesMax
			f.driver.Fetched(f.now, fetch, pageOf(fetch))
		}
	}
	if atHand > p.AtHandBytesMax || atHand < p.AtHandBytesMax/2 {
		t.Errorf("%d bytes are at hand, at most %d should be, and hardly less", atHand, p.AtHandBytesMax)
	}
	if largest > p.AtHandBytesMax {
		t.Errorf("one list has %d bytes, at most %d may be at hand", largest, p.AtHandBytesMax)
	}
	for s, n := range proposed {
		if n < 5 || n > 2*seconds {
			t.Errorf("the page of shard %d was proposed %d times in %d s", s, n, seconds)
		}
	}
	// The last pages of a frozen shard are fetched all the same.
	f.stage(shards, kvfsm.PhaseFrozen, "a:1")
	if got := f.step(t); len(got) != 1 || got[0].Wants[0].Shard != shards {
		t.Errorf("beside full hands the fetches are %+v, want one of the frozen shard", got)
	}
}

// What clients wait for is tried again soon, however often it was refused.
func TestRefusedProposalsRest(t *testing.T) {
	w, a, b := pair(t, 2)
	w.put(a, 10)
	w.stage(a, b)
	w.apply(a, &kvfsm.Freeze{Epoch: shardcfg.Epoch{Num: 1}, Handoff: 2})
	a.driver.Heard(0, shardcfg.Epoch{Num: 2}, b.id.Peer.Incarnation)
	tried := 0
	for range 1000 { // 10 s
		w.now += 10 * time.Millisecond
		acts, err := a.driver.Step(w.now, a.view)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range acts.Proposals {
			tried++
			a.driver.Proposed(w.now, c, kvfsm.Verdict{}, raftgroup.ErrBusy)
		}
	}
	if tried < 90 || tried > 110 {
		t.Errorf("a Drop was proposed %d times in 10 s, want one for each 100 ms", tried)
	}
}

// A page that takes longer than its Fetch may is asked for in smaller parts and with
// more patience, until it arrives (INV-5); but a source that is not heard of is not
// waited for any longer than at first.
func TestSlowLinkIsGivenTime(t *testing.T) {
	p := handoff.DefaultParams()
	ask := func(f *fetching) handoff.Fetch {
		t.Helper()
		f.now += p.InviteEvery
		got := f.step(t)
		if len(got) != 1 {
			t.Fatalf("fetches are %+v, want one", got)
		}
		return got[0]
	}
	slow, gone := newFetching(), newFetching()
	slow.stage(0, kvfsm.PhaseLeaving, "a:1")
	gone.stage(0, kvfsm.PhaseLeaving, "a:1")
	const bytesPerSecond = 64 << 10
	arrived := false
	for range 8 {
		fetch := ask(slow)
		took := time.Duration(fetch.BytesMax) * time.Second / bytesPerSecond
		slow.now += min(took, fetch.Patience)
		slow.invite(0, kvfsm.PhaseLeaving, "a:1") // the link is slow, and not cut
		if arrived = took < fetch.Patience; arrived {
			slow.driver.Fetched(slow.now, fetch, nil)
			break
		}
		slow.driver.FetchFailed(slow.now, fetch)

		if fetch = ask(gone); fetch.Patience != p.FetchTimeout {
			t.Fatalf("a source that is silent is given %v", fetch.Patience)
		}
		gone.now += fetch.Patience
		gone.driver.FetchFailed(gone.now, fetch)
	}
	if !arrived {
		t.Fatalf("no page arrives at %d bytes/s", bytesPerSecond)
	}
	// Once the link is fast again, so are the fetches.
	for range 8 {
		fetch := ask(slow)
		slow.driver.Fetched(slow.now+time.Millisecond, fetch, nil)
	}
	if fetch := ask(slow); fetch.Patience != p.FetchTimeout || fetch.BytesMax != p.PageBytes {
		t.Errorf("over a fast link a Fetch has %v and asks for %d bytes", fetch.Patience, fetch.BytesMax)
	}
}

// For a receiver that has fallen silent no write is slowed, and nothing is frozen or
// begun; once it is heard again, the slowing begins anew.
func TestSilentReceiver(t *testing.T) {
	w, a, b := pair(t, 2)
	w.put(a, 3000)
	w.stage(a, b)
	w.next(a)
	for range 60 {
		w.put(a, 3000)
		w.fetch(a, b)
		w.put(a, 3000)
		w.next(a)
	}
	if acts := w.next(a); len(acts.Throttles) == 0 {
		t.Fatal("the tail does not get short, and no write is slowed")
	}
	w.now += time.Hour
	if acts := w.next(a); len(acts.Throttles) > 0 {
		t.Errorf("an hour after the receiver's last word every write is slowed by %v", acts.Throttles[0].Delay)
	}
	// Moved again, with a pause that everything fits.
	w.ownerIs(b)
	w.latest().Pins[0] = shardcfg.Pin{Group: b.id.Peer.Group, MaxPauseMS: 10_000}
	w.apply(a, &kvfsm.Adopt{Cluster: cluster, Config: w.latest()})
	wantProposals(t, w.next(a))
	w.put(a, 3000)
	w.fetch(a, b)
	if acts := w.next(a); len(acts.Throttles) > 0 {
		t.Error("a receiver that is heard again has no time to catch up")
	}
}

// Nothing begins on the word of a receiver that has fallen silent since.
func TestStartOnFreshWord(t *testing.T) {
	w, a, b := pair(t, 2)
	acts := w.next(a)
	a.driver.Hold(true)
	a.driver.Answered(w.now, acts.Invites[0], handoff.Answer(b.id, &b.view, acts.Invites[0]))
	w.now += time.Hour
	a.driver.Hold(false)
	wantProposals(t, w.next(a))
	acts = w.next(a)
	a.driver.Answered(w.now, acts.Invites[0], handoff.Answer(b.id, &b.view, acts.Invites[0]))
	wantProposals(t, w.next(a), &kvfsm.Start{Handoff: 2})
}

// What waits in a queue is not proposed once more beside itself.
func TestProposalUnderWayIsNotRepeated(t *testing.T) {
	f := newFetching()
	f.stage(0, kvfsm.PhaseLeaving, "a:1")
	fetch := f.step(t)[0]
	f.driver.Fetched(f.now, fetch, pageOf(fetch))
	proposed := 0
	for range 100 { // 10 s
		f.now += 100 * time.Millisecond
		a, err := f.driver.Step(f.now, f.view)
		if err != nil {
			t.Fatal(err)
		}
		proposed += len(a.Copies)
	}
	if proposed != 1 {
		t.Errorf("a page that waits was proposed %d times", proposed)
	}
}

// Pages of tails take turns with clients' writes, so that hardly any may be in the
// queue at once.
func TestTailsAtHandAreFew(t *testing.T) {
	const shards = 200
	f, p := newFetching(), handoff.DefaultParams()
	f.view.Config.Shards = make([]shardcfg.GroupID, shards)
	for s := range shards {
		f.view.Config.Shards[s] = 2
		f.stage(shardcfg.ShardID(s), kvfsm.PhaseLeaving, "a:1")
		f.view.Records[s].Staging.Cursor = kvfsm.Cursor{Tail: true, Revision: 1}
	}
	atHand := 0
	for range shards {
		f.now += 10 * time.Millisecond
		for _, fetch := range f.step(t) {
			atHand += fetch.BytesMax
			pages := pageOf(fetch)
			pages[0].Next = kvfsm.Cursor{Tail: true, Revision: 2}
			f.driver.Fetched(f.now, fetch, pages)
		}
	}
	if atHand > p.AtHandBytesMax/4 || atHand == 0 {
		t.Errorf("%d bytes of tails are at hand, want some, and at most a quarter of %d", atHand, p.AtHandBytesMax)
	}
}
