package logstore

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

func vote(t *testing.T, s *checked, term uint64, candidate string) {
	t.Helper()
	if err := errors.Join(s.SetUint64([]byte(nameCurrentTerm), term), s.SetUint64([]byte(nameLastVoteTerm), term),
		s.Set([]byte(nameLastVoteCand), []byte(candidate))); err != nil {
		t.Fatal(err)
	}
}

// TestVoteIsKeptTwice: a vote that was given is shown although either copy of the
// hard state rots: after it was written, and after a crash that left it in one copy
// only, from the moment on at which it is shown again.
func TestVoteIsKeptTwice(t *testing.T) {
	for rotten := range 2 {
		s, b, slots := memoryStore(t)
		vote(t, s, 3, "a:1")
		before, sequence := slots.clone(), s.hard.mu.sequence
		vote(t, s, 4, "b:1")
		slots.mu.slots[rotten][20]++
		after, err := reopen(b, slots)
		if err != nil {
			t.Fatal(err)
		}
		if state, _ := after.hard.get(); state.voteTerm != 4 || string(state.candidate) != "b:1" {
			t.Errorf("copy %d rotted: the vote is for %s in term %d", rotten, state.candidate, state.voteTerm)
		}

		// The vote was cut off between its two copies.
		slots = before
		cutOff := hardState{term: 4, voteTerm: 4, candidate: []byte("b:1")}
		slots.mu.slots[(sequence+1)%2] = cutOff.encode(sequence + 1)
		if after, err = reopen(b, slots); err != nil {
			t.Fatal(err)
		}
		if state, _ := after.hard.get(); state.voteTerm != 4 {
			t.Fatalf("the vote in term 4 is not shown, but one in term %d", state.voteTerm)
		}
		slots.mu.slots[rotten][20]++
		if after, err = reopen(b, slots); err != nil {
			t.Fatal(err)
		}
		if state, _ := after.hard.get(); state.voteTerm != 4 {
			t.Errorf("copy %d rotted: a vote in term 4 that was shown is taken back to term %d", rotten, state.voteTerm)
		}
	}
}

// TestHardStateRefuses: a hard state of which no copy can be trusted, or of which a
// write was lost, is refused; one bad copy is told of.
func TestHardStateRefuses(t *testing.T) {
	for name, damage := range map[string]func(slots *[2][]byte){
		"both copies": func(slots *[2][]byte) { slots[0][8]++; slots[1][8]++ },
		"no copies":   func(slots *[2][]byte) { slots[0], slots[1] = nil, nil },
		"lost write":  func(slots *[2][]byte) { slots[1] = hardState{}.encode(1) },
		"exchanged":   func(slots *[2][]byte) { slots[0], slots[1] = slots[1], slots[0] },
	} {
		s, b, slots := memoryStore(t)
		vote(t, s, 3, "a:1")
		vote(t, s, 4, "a:1")
		damage(&slots.mu.slots)
		if _, err := reopen(b, slots); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, _, slots := memoryStore(t)
	vote(t, s, 3, "a:1")
	slots.mu.slots[0] = slots.mu.slots[0][:9]
	if _, warning, err := openHardStates(slots); err != nil || warning == nil {
		t.Errorf("a copy that was cut off: warning %v, error %v", warning, err)
	}
	if _, warning, err := openHardStates(slots); err != nil || warning != nil {
		t.Errorf("it was not written anew: warning %v, error %v", warning, err)
	}
}

// TestShownEntriesAreKept: entries of an append that was cut off before the hard
// state told of them are shown after a restart, so that others may hear of them; if
// they are lost after that, it is damage.
func TestShownEntriesAreKept(t *testing.T) {
	s, b, slots := memoryStore(t)
	entries := func(first, last uint64) (logs []*raft.Log) {
		for i := first; i <= last; i++ {
			logs = append(logs, &raft.Log{Index: i, Term: 1})
		}
		return logs
	}
	for _, first := range []uint64{1, 4} { // of an empty log, and of one with entries
		before := slots.clone()
		if err := s.StoreLogs(entries(first, first+2)); err != nil {
			t.Fatal(err)
		}
		slots = before
		var err error
		if s, err = reopen(b, slots); err != nil {
			t.Fatal(err)
		}
		if last, _ := s.LastIndex(); last != first+2 {
			t.Fatalf("the log goes up to %d, want %d", last, first+2)
		}
		lost := b.clone()
		delete(lost.mu.logs, first+2)
		if _, err := reopen(lost, slots.clone()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("entry %d was shown and lost: %v", first+2, err)
		}
	}
}

// TestTruncatedEntriesStayAway: entries that were truncated, or cut off, and are in
// the log again because an older page of it is read, are not shown.
func TestTruncatedEntriesStayAway(t *testing.T) {
	s, b, slots := memoryStore(t)
	for i := uint64(1); i <= 9; i++ {
		if err := s.StoreLog(&raft.Log{Index: i, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	old := b.clone()
	for _, c := range []struct{ low, high, first, last uint64 }{{7, 9, 1, 6}, {1, 2, 3, 6}, {3, 6, 0, 0}} {
		if err := s.DeleteRange(c.low, c.high); err != nil {
			t.Fatal(err)
		}
		again, err := reopen(old.clone(), slots.clone())
		if err != nil {
			t.Fatal(err)
		}
		first, _ := again.FirstIndex()
		last, _ := again.LastIndex()
		if first != c.first || last != c.last {
			t.Errorf("after the deletion of %d to %d the log goes from %d to %d", c.low, c.high, first, last)
		}
	}
}
