package explore

import (
	"encoding/binary"
	"iter"
	"strings"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// Disks that are left of a destroyed group: the group that takes its seat may begin
// with one. What the disk does not show is lost once its copy is thawed, and may be
// executed again then, unless its session was born before that.

// disksLeft yields with what a seat's destroyed group may be followed: 0 for nothing,
// else a local by number from 1; see disk.
func (x *explorer) disksLeft(st *state, seat int) iter.Seq[int] {
	return func(yield func(int) bool) {
		n := 0
		if x.bound.Reformed {
			n = max(1, len(st.past[seat])) // only a full search knows the past
		}
		for left := range n + 1 {
			if !yield(left) {
				return
			}
		}
	}
}

// succeed puts a group on a seat whose group, gone, was destroyed. next is a copy of
// the state before, with a new life for the seat.
func (x *explorer) succeed(next *state, seat int, gone incID, left int) {
	if left == 0 {
		x.found(next, seat)
		return
	}
	id := next.locals[seat]
	if x.full {
		id = next.past[seat][left-1]
	}
	next.locals[seat] = x.internLocal(next.inc(seat), x.reformed(x.locals[id].store, gone.peer()))
	if x.full {
		next.past[seat] = append(next.past[seat][:0], next.locals[seat])
	}
}

// reformed returns a reformed copy of a store.
func (x *explorer) reformed(s *store.Mem, destroyed kvfsm.Peer) *store.Mem {
	s = s.Clone()
	b, err := s.NewBatch()
	if err == nil {
		reform := kvfsm.Reform
		if p := x.opts.Plant; p != nil && p.Reform != nil {
			reform = p.Reform
		}
		if _, err = reform(b, destroyed); err == nil {
			err = b.Commit()
		}
		b.Close()
	}
	if err == nil {
		err = s.Sync()
	}
	if err != nil {
		panic("explore: " + err.Error())
	}
	return s
}

// reformedCopy reports whether what a seat has of a shard is the copy that it began
// with: frozen for the group that it follows. It shows the past, and no token.
func reformedCopy(seat int, sh *shardState) bool {
	return sh.phase == kvfsm.PhaseFrozen && sh.to != noInc && sh.to.seat() == seat
}

// has reports whether the values of a copy, as readValues wrote them, have what an
// append appended: its number from 1, as one letter.
func has(served []byte, op uint8) bool {
	for len(served) > 0 {
		n, width := binary.Uvarint(served)
		text := string(served[width : width+int(n)])
		served = served[width+int(n):]
		if _, value, _ := strings.Cut(text, ":"); strings.Contains(value, string('1'+rune(op))) {
			return true
		}
	}
	return false
}
