package logstore

import (
	"encoding/hex"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// The hard state, and what seals an entry, never change their bytes.
func TestGolden(t *testing.T) {
	state := hardState{term: 7, voteTerm: 6, candidate: []byte("a.01"), log: extent{first: 3, last: 9, sum: 0x01020304, generation: 8}}
	const want = "53484853010000000000000005000000000000000700000000000000060000000000000003000000000000000901020304000000080004612e30319f5b1c1c"
	if got := hex.EncodeToString(state.encode(5)); got != want {
		t.Errorf("the hard state is %s, want %s", got, want)
	}
	if got, sequence, err := decodeHardState(append(state.encode(5), 0, 0)); err != nil || sequence != 5 || !reflect.DeepEqual(got, state) {
		t.Errorf("the hard state is read back as %+v, number %d, %v", got, sequence, err)
	}
	log := &raft.Log{Index: 1, Term: 2, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("x"), AppendedAt: time.Unix(3, 4)}
	const sealed = "78000000090000000880ffe883"
	got, _ := seal(log, 9, 8)
	if s := hex.EncodeToString(got.Extensions); s != sealed {
		t.Errorf("the extensions of a sealed entry are %s, want %s", s, sealed)
	}
}
