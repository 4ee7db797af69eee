package logstore

import (
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
)

// The record of term and vote, and what seals an entry, never change their bytes.
func TestGolden(t *testing.T) {
	vote := voteRecord{term: 7, voteTerm: 6, candidate: []byte("a.01")}
	const want = "01000000000000000700000000000000060004612e3031bf93e4f9"
	if got := hex.EncodeToString(vote.encode()); got != want {
		t.Errorf("term and vote are %s, want %s", got, want)
	}
	if got, err := decodeVote(vote.encode()); err != nil || !reflect.DeepEqual(got, vote) {
		t.Errorf("term and vote are read back as %+v, %v", got, err)
	}
	log := &raft.Log{Index: 1, Term: 2, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("x")}
	const sealed = "782d6f12c3"
	if got := hex.EncodeToString(seal(log).Extensions); got != sealed {
		t.Errorf("the extensions of a sealed entry are %s, want %s", got, sealed)
	}
}
