package logstoretest

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/logstore"
)

// The names that Raft uses.
var (
	currentTerm  = []byte("CurrentTerm")
	lastVoteTerm = []byte("LastVoteTerm")
	lastVoteCand = []byte("LastVoteCand")
)

// A Ballot is what a store says about term and vote.
type Ballot struct {
	Term, VoteTerm uint64
	Candidate      string
}

// ReadBallot reads term and vote as Raft does.
func ReadBallot(t *testing.T, s raft.StableStore) Ballot {
	t.Helper()
	var b Ballot
	var err error
	if b.Term, err = s.GetUint64(currentTerm); err != nil && err.Error() != "not found" {
		t.Fatal(err)
	}
	if b.VoteTerm, err = s.GetUint64(lastVoteTerm); err != nil && err.Error() != "not found" {
		t.Fatal(err)
	}
	candidate, err := s.Get(lastVoteCand)
	if err != nil && err.Error() != "not found" {
		t.Fatal(err)
	}
	b.Candidate = string(candidate)
	return b
}

// Vote gives a vote as Raft does: the term first, as soon as it is heard of,
// then the vote in two writes, of which halfway stands between.
func Vote(t *testing.T, s raft.StableStore, term uint64, candidate string, halfway func()) {
	t.Helper()
	must(t, s.SetUint64(currentTerm, term))
	must(t, s.SetUint64(lastVoteTerm, term))
	if halfway != nil {
		halfway()
	}
	must(t, s.Set(lastVoteCand, []byte(candidate)))
}

func expectBallot(t *testing.T, s logstore.LogStore, want Ballot) {
	t.Helper()
	if got := ReadBallot(t, s); got != want {
		t.Fatalf("the store says %+v, want %+v", got, want)
	}
}

// vote: term and vote are read back, and a term alone leaves the vote as it is.
func (s Subject) vote(t *testing.T) {
	store := s.Open(t)
	expectBallot(t, store, Ballot{})
	must(t, store.SetUint64(currentTerm, 1))
	expectBallot(t, store, Ballot{Term: 1})
	Vote(t, store, 2, "a:1", nil)
	expectBallot(t, store, Ballot{2, 2, "a:1"})
	must(t, store.SetUint64(currentTerm, 5))
	expectBallot(t, store, Ballot{5, 2, "a:1"})
	Vote(t, store, 5, "b:1", nil)
	Vote(t, store, 5, "b:1", nil) // the same again, as for a repeated request
	expectBallot(t, store, Ballot{5, 5, "b:1"})
	expectBallot(t, s.Crash(t, store), Ballot{5, 5, "b:1"})
}

// voteCrash: between the two writes of a vote, every reader and every crash
// sees the old vote, whole; after the second, the new one.
func (s Subject) voteCrash(t *testing.T) {
	store := s.Open(t)
	Vote(t, store, 3, "old:1", nil)
	var torn logstore.LogStore
	Vote(t, store, 4, "new:1", func() {
		expectBallot(t, store, Ballot{4, 3, "old:1"})
		torn = s.Crash(t, store)
		expectBallot(t, torn, Ballot{4, 3, "old:1"})
	})
	expectBallot(t, s.Crash(t, store), Ballot{4, 4, "new:1"})
	// The one that crashed has not voted in term 4, and may still.
	Vote(t, torn, 4, "other:1", nil)
	expectBallot(t, torn, Ballot{4, 4, "other:1"})

	// A vote that was begun and given up is not completed by a later one.
	must(t, store.SetUint64(lastVoteTerm, 6))
	must(t, store.SetUint64(currentTerm, 7))
	if err := store.Set(lastVoteCand, []byte("late:1")); !errors.Is(err, logstore.ErrMisuse) {
		t.Fatalf("a candidate without its term: %v", err)
	}
	expectBallot(t, store, Ballot{7, 4, "new:1"})
}

// unsafeVotes: what Raft must never ask for is refused, and changes nothing.
func (s Subject) unsafeVotes(t *testing.T) {
	store := s.Open(t)
	Vote(t, store, 4, "a:1", nil)
	vote := func(term uint64, candidate string) error {
		must(t, store.SetUint64(lastVoteTerm, term))
		return store.Set(lastVoteCand, []byte(candidate))
	}
	for name, err := range map[string]error{
		"second vote in a term":    vote(4, "b:1"),
		"vote in a past term":      vote(3, "b:1"),
		"vote in a term to come":   vote(5, "b:1"),
		"vote for nobody":          vote(4, ""),
		"candidate without a term": store.Set(lastVoteCand, []byte("b:1")),
		"term that falls":          store.SetUint64(currentTerm, 3),
		"term as bytes":            store.Set(currentTerm, []byte("12345678")),
		"candidate as number":      store.SetUint64(lastVoteCand, 1),
		"vote term as bytes":       store.Set(lastVoteTerm, []byte("12345678")),
	} {
		if !errors.Is(err, logstore.ErrMisuse) {
			t.Errorf("%s: got %v, want %v", name, err, logstore.ErrMisuse)
		}
	}
	expectBallot(t, store, Ballot{4, 4, "a:1"})
	expectBallot(t, s.Crash(t, store), Ballot{4, 4, "a:1"})
}
