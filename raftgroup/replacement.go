package raftgroup

import (
	"context"
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// keyReplacement is where the newest replacement is noted.
var keyReplacement = []byte{0xFF, 0xFF, 5}

// A replacement says which member another one was begun to be replaced by, by
// their server ids; both empty: none. On disk, and as the body of an
// entry.KindReplacement, it is format u8 1 and both names, each as length u16 and
// bytes.
type replacement struct{ newcomer, old string }

const replacementFormat = 1

func (p replacement) encode() []byte {
	return appendString(appendString([]byte{replacementFormat}, p.newcomer), p.old)
}

func decodeReplacement(b []byte) (p replacement, err error) {
	ok := len(b) > 0 && b[0] == replacementFormat
	if ok {
		p.newcomer, b, ok = cutString(b[1:])
	}
	if ok {
		p.old, b, ok = cutString(b)
	}
	if !ok || len(b) != 0 {
		return replacement{}, fmt.Errorf("%w: replacement", errPosition)
	}
	return p, nil
}

func readReplacement(r store.Reader) (replacement, error) {
	b, ok, err := r.Get(keyReplacement)
	if err != nil || !ok {
		return replacement{}, err
	}
	return decodeReplacement(b)
}

// NoteReplacement has the group note that one member is to be replaced by another,
// by their server ids, before the first step of it; the newest note counts. So a
// replacement that was cut off is told from a mistake when it is repeated. Only
// the leader can do it.
func (r *Replica) NoteReplacement(ctx context.Context, newcomer, old string) error {
	want := replacement{newcomer, old}
	if r.fsm.replacement() == want {
		return nil
	}
	_, err := r.Propose(ctx, entry.Command{Kind: entry.KindReplacement, Body: want.encode()})
	return err
}

// Replacement returns the newest replacement that was noted, whether it is
// complete or not; empty names: none.
func (r *Replica) Replacement() (newcomer, old string) {
	p := r.fsm.replacement()
	return p.newcomer, p.old
}

func (f *fsm) replacement() replacement {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.replacement
}
