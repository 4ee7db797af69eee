package explore

import (
	"fmt"

	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// checkStep returns the invariant that a step breaks, with what happened; empty:
// none.
func (x *explorer) checkStep(st *state, a action, out *step) string {
	sound := st.faults == 0 && a.kind != actFault
	switch {
	case out.err != "":
		return "the machine stops: " + out.err
	case out.verdict.Why == kvfsm.ReasonDigest && sound:
		return "INV-6 Digest: a staging differs from what its holder froze"
	case out.verdict.Why == kvfsm.ReasonItems && sound:
		return "malformed items in a page"
	}
	if op := x.commands[a.arg].op; op >= 0 {
		if bad := x.checkOutcome(st, op, out.outcome); bad != "" {
			return bad
		}
	}
	before, after := x.locals[st.locals[a.seat]], x.locals[out.to]
	if before == after {
		return ""
	}
	if after.broken != "" {
		return after.broken
	}
	if after.view.Adopted() < before.view.Adopted() {
		return fmt.Sprintf("INV-4 Monotone: %v fell from config %d to %d", after.inc, before.view.Adopted(), after.view.Adopted())
	}
	for s := range after.shards {
		if bad := x.checkShard(st, before, after, s, sound); bad != "" {
			return bad
		}
	}
	_, adopts := x.commands[a.arg].cmd.(*kvfsm.Adopt)
	_, creates := x.commands[a.arg].cmd.(*kvfsm.Create)
	if !adopts && !creates && sound {
		if before.drained && !after.drained {
			return fmt.Sprintf("INV-8 Drained: %v was drained and is not any more", after.inc)
		}
	}
	return ""
}

// checkOutcome: an operation is executed once, and a repeat is told so.
func (x *explorer) checkOutcome(st *state, op int, out kvfsm.Outcome) string {
	done := x.done(st, op)
	switch {
	case !out.Code.Done():
		return ""
	case out.Repeat && !done:
		return fmt.Sprintf("INV-2 NoLoss: operation %d is called a repeat and was never executed", op+1)
	case out.Repeat && packVersion(out.Version) != st.versions[op]:
		return fmt.Sprintf("INV-2 NoLoss: a repeat of operation %d is answered with version %d, its execution was with %d", op+1, packVersion(out.Version), st.versions[op])
	case !out.Repeat && x.bound.Ops[op].Old && st.ever>>op&1 == 1:
		return fmt.Sprintf("INV-2 NoLoss: operation %d is executed again, though its session is from before the repair", op+1)
	case !out.Repeat && done:
		return fmt.Sprintf("INV-2 NoLoss: operation %d is executed twice", op+1)
	}
	return ""
}

// checkShard checks how one record changed.
func (x *explorer) checkShard(st *state, before, after *local, s int, sound bool) string {
	was, is := &before.shards[s], &after.shards[s]
	if is.own.Compare(was.own) < 0 {
		return fmt.Sprintf("INV-4 Monotone: %v fell from %+v to %+v", after.inc, was.own, is.own)
	}
	if is.phase.Serves() && is.epoch != was.epoch && is.epoch <= uint64(st.minted[s]) {
		return fmt.Sprintf("INV-1 Token: %v mints epoch %d of shard %d, %d was minted before", after.inc, is.epoch, s, st.minted[s])
	}
	if is.staging && was.staging && is.st.mark == was.st.mark && sound && backwards(was.st.cursor, is.st.cursor) {
		return fmt.Sprintf("INV-4 Monotone: the cursor of %v fell from %+v to %+v", after.inc, was.st.cursor, is.st.cursor)
	}
	if is.phase == kvfsm.PhaseFrozen && was.phase != kvfsm.PhaseFrozen && !x.wasStaged(st, after.inc, is, s) {
		return fmt.Sprintf("INV-7 StagedFirst: %v freezes shard %d towards %v, which never had the whole copy", after.inc, s, is.to)
	}
	return ""
}

func backwards(was, is kvfsm.Cursor) bool {
	if was.Tail != is.Tail {
		return was.Tail
	}
	return string(is.Key) < string(was.Key) || is.Revision < was.Revision
}

// wasStaged reports whether the receiver of a frozen shard once had its whole
// copy.
func (x *explorer) wasStaged(st *state, holder incID, sh *shardState, s int) bool {
	for _, id := range st.facts {
		f := &x.facts[id]
		if f.kind == factTail && f.shard == s && f.from == holder && f.to == sh.to && f.mark == sh.offered {
			return true
		}
	}
	return false
}

// checkState returns the invariant that a state breaks; empty: none.
func (x *explorer) checkState(st *state) string {
	for s := range x.bound.Shards {
		serving, newest := noInc, noInc
		for seat := range x.bound.Groups {
			l := x.locals[st.locals[seat]]
			sh := &l.shards[s]
			if sh.epoch>>epochBits == 0 && sh.epoch > uint64(st.configCount) {
				return fmt.Sprintf("INV-10 Bounded: epoch %d after %d configs", sh.epoch, st.configCount)
			}
			holds := sh.phase.Serves() || sh.phase == kvfsm.PhaseFrozen && !reformedCopy(seat, sh)
			if sh.phase.Serves() {
				if serving != noInc {
					return fmt.Sprintf("INV-1 Token: shard %d is served by %v and by %v", s, serving, l.inc)
				}
				serving = l.inc
			}
			if holds && sh.epoch == uint64(st.minted[s]) {
				newest = l.inc
			}
			if sh.phase.Serves() || newest == l.inc {
				if want := x.expect(st, s); string(sh.served) != string(want) {
					return fmt.Sprintf("INV-2 NoLoss: %v is %v and holds %q, executed was %q", l.inc, sh.phase, sh.served, want)
				}
			}
		}
		if st.minted[s] > 0 && newest == noInc && !(x.bound.Destroyed > 0 && st.isRetired(st.mintedBy[s])) {
			return fmt.Sprintf("INV-2 NoLoss: nobody holds shard %d at epoch %d", s, st.minted[s])
		}
	}
	return ""
}

// expect returns what a shard must hold: its operations in the order of their
// execution.
func (x *explorer) expect(st *state, s int) []byte {
	k := append(x.scratch.key[:0], byte(s), st.executed[s])
	k = append(append(k, st.order[s][:st.executed[s]]...), st.versions[:]...)
	x.scratch.key = k
	if want, ok := x.expected[string(k)]; ok {
		return want
	}
	values, versions := make([]string, x.bound.Keys), make([]uint8, x.bound.Keys)
	for _, o := range st.order[s][:st.executed[s]] {
		op := x.bound.Ops[o]
		switch letter := string('1' + rune(o)); op.Kind {
		case kvfsm.OpAppend:
			values[op.Key] += letter
		case kvfsm.OpPut:
			values[op.Key] = letter
		case kvfsm.OpDelete:
			values[op.Key] = ""
		}
		versions[op.Key] = st.versions[o]
	}
	var want []byte
	for i := range values {
		if values[i] == "" {
			want = appendBytes(want, nil)
			continue
		}
		want = appendBytes(want, fmt.Appendf(nil, "%d:%s", versions[i], values[i]))
	}
	x.expected[string(k)] = want
	return want
}
