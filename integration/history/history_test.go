package history

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// at makes an operation that ran from call to ret.
func at(call, ret int64, op Operation) Operation {
	op.Call, op.Return = call, ret
	if op.Outcome == 0 {
		op.Outcome = Done
	}
	op.Client = int(call)
	op.Key = "k"
	return op
}

// The judge accepts what a register can do and refuses what it can't. Every
// refused row is a planted bug of a store.
func TestLinearizable(t *testing.T) {
	put := func(v string, version uint64) Operation { return Operation{Kind: Put, Value: v, Version: version} }
	get := func(v string, version uint64) Operation {
		return Operation{Kind: Get, Found: true, Read: v, Version: version}
	}
	absent := Operation{Kind: Get}
	unknown := func(op Operation) Operation { op.Outcome = Unknown; return op }
	tests := []struct {
		name string
		h    History
		want bool
	}{
		{"read what was written", History{at(1, 2, put("a", 1)), at(3, 4, get("a", 1))}, true},
		{"overlapping read may be old", History{at(1, 9, put("a", 1)), at(3, 4, absent)}, true},
		{"stale read", History{at(1, 2, put("a", 1)), at(3, 4, put("b", 2)), at(5, 6, get("a", 1))}, false},
		{"lost write", History{at(1, 2, put("a", 1)), at(3, 4, absent)}, false},
		{"unknown write may show late", History{at(1, 2, unknown(put("a", 0))), at(3, 4, absent), at(5, 6, get("a", 7))}, true},
		{"unknown write shows once", History{at(1, 2, unknown(put("a", 0))), at(3, 4, get("a", 7)), at(5, 6, put("b", 8)), at(7, 8, get("a", 9))}, false},
		{"refused write shows", History{at(1, 2, Operation{Kind: Put, Value: "a", Outcome: NotDone}), at(3, 4, get("a", 1))}, false},
		{"version falls", History{at(1, 2, put("a", 5)), at(3, 4, put("b", 4))}, false},
		{"version falls across delete", History{at(1, 2, put("a", 5)), at(3, 4, Operation{Kind: Delete, Found: true}), at(5, 6, put("a", 5))}, false},
		{"wrong version read", History{at(1, 2, put("a", 5)), at(3, 4, get("a", 4))}, false},
		{"append doubled", History{at(1, 2, Operation{Kind: Append, Value: "x", Version: 1, Length: 1}), at(3, 4, get("xx", 1))}, false},
		{"append length", History{at(1, 2, put("ab", 1)), at(3, 4, Operation{Kind: Append, Value: "c", Version: 2, Length: 4})}, false},
		{"append", History{at(1, 2, put("ab", 1)), at(3, 4, Operation{Kind: Append, Value: "c", Version: 2, Length: 3}), at(5, 6, get("abc", 2))}, true},
		{"conditional twice", History{at(1, 2, put("a", 1)),
			at(3, 5, Operation{Kind: PutIf, Value: "b", IfVersion: 1, Matched: true, Version: 2}),
			at(4, 6, Operation{Kind: PutIf, Value: "c", IfVersion: 1, Matched: true, Version: 3})}, false},
		{"condition refused wrongly", History{at(1, 2, put("a", 1)), at(3, 4, Operation{Kind: PutIf, Value: "b", IfVersion: 1, Version: 1})}, false},
		{"condition refused", History{at(1, 2, put("a", 3)), at(3, 4, Operation{Kind: PutIf, Value: "b", IfVersion: 1, Version: 3}), at(5, 6, get("a", 3))}, true},
		{"condition refused wrongly after an unknown write", History{at(1, 2, put("a", 1)), at(3, 4, unknown(put("b", 0))),
			at(5, 6, Operation{Kind: PutIf, Value: "c", IfVersion: 7, Version: 7}), at(7, 8, get("b", 7))}, false},
		{"condition refused after an unknown write", History{at(1, 2, put("a", 1)), at(3, 4, unknown(put("b", 0))),
			at(5, 6, Operation{Kind: PutIf, Value: "c", IfVersion: 6, Version: 7}), at(7, 8, get("b", 7))}, true},
		{"create if absent, unknown, shows", History{at(1, 2, unknown(Operation{Kind: PutIf, Value: "b"})), at(3, 4, get("b", 9))}, true},
		{"delete not found", History{at(1, 2, put("a", 1)), at(3, 4, Operation{Kind: Delete})}, false},
	}
	for _, test := range tests {
		if got := test.h.Linearizable(time.Minute); got.Linearizable != test.want || got.Undecided {
			t.Errorf("%s: %s", test.name, got)
		}
	}
}

// Each way in which a token can be wrong is told apart.
func TestTokens(t *testing.T) {
	op := func(client, n int, o Outcome) Operation {
		return Operation{Client: client, Kind: Append, Key: "k", Value: Token(client, n), Outcome: o}
	}
	h := History{op(1, 1, Done), op(1, 2, Done), op(2, 1, Unknown), op(2, 2, NotDone)}
	tests := []struct {
		name, final string
		bad         func(Tokens) int
	}{
		{"all there", "[1:1][1:2]", nil},
		{"unknown there", "[1:1][2:1][1:2]", nil},
		{"lost", "[1:1]", func(t Tokens) int { return len(t.Lost) }},
		{"duplicated", "[1:1][1:2][1:2]", func(t Tokens) int { return len(t.Duplicated) }},
		{"unknown twice", "[1:1][2:1][1:2][2:1]", func(t Tokens) int { return len(t.Duplicated) }},
		{"refused there", "[1:1][1:2][2:2]", func(t Tokens) int { return len(t.Forbidden) }},
		{"order", "[1:2][1:1]", func(t Tokens) int { return len(t.Disordered) }},
	}
	for _, test := range tests {
		got := h.CheckTokens(map[string]string{"k": test.final})
		if test.bad == nil && !got.OK() || test.bad != nil && test.bad(got) != 1 {
			t.Errorf("%s: %s", test.name, got)
		}
	}
}

// A recorder keeps little of a long value, and the judge still sees the one byte
// that is wrong in its middle.
func TestLongReads(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for _, test := range []struct {
		read string
		want bool
	}{{long, true}, {long[:500] + "y" + long[501:], false}, {long[:999], false}} {
		r := NewRecorder()
		r.Add(at(1, 2, Operation{Kind: Put, Value: long, Version: 1}))
		r.Add(at(3, 4, Operation{Kind: Get, Found: true, Read: test.read, Version: 1}))
		h := r.History()
		if got := h.Linearizable(time.Minute); got.Linearizable != test.want || len(h[1].Read) > shownBytesMax {
			t.Errorf("%d bytes read: %s; %d bytes kept", len(test.read), got, len(h[1].Read))
		}
	}
}

// The busiest key has the most operations.
func TestBusiest(t *testing.T) {
	h := History{{Key: "a"}, {Key: "b"}, {Key: "c"}, {Key: "b"}, {Key: "c"}}
	if got := h.Busiest(); got != "b" {
		t.Errorf("busiest is %q", got)
	}
}

// A history that can't be judged in the time given is undecided, which is no
// pass: neither if porcupine runs out of time nor if there is none left.
func TestUndecided(t *testing.T) {
	var hard History
	for i := range int64(40) {
		hard = append(hard, at(1, 1000+i, Operation{Kind: Append, Value: Token(int(i), 1), Outcome: Unknown}))
	}
	hard = append(hard, at(2000, 2001, Operation{Kind: Get, Found: true, Read: "never written", Version: 1}))
	for _, timeout := range []time.Duration{-time.Second, 50 * time.Millisecond} {
		if got := hard.Linearizable(timeout); got.Linearizable || !got.Undecided {
			t.Errorf("within %v: %s", timeout, got)
		}
	}
}

// The picture is written also for a history that was refused.
func TestVisualize(t *testing.T) {
	h := History{at(1, 2, Operation{Kind: Put, Value: "a", Version: 1}), at(3, 4, Operation{Kind: Get})}
	if err := h.Visualize("k", filepath.Join(t.TempDir(), "k.html"), time.Second); err != nil {
		t.Fatal(err)
	}
}

// Many writes of unknown outcome do not make a history undecidable, whether they
// showed or not; and one that shows before it was called is still refused.
func TestManyUnknownOutcomes(t *testing.T) {
	var h History
	now := int64(0)
	add := func(op Operation) {
		op.Key, op.Client, op.Call, op.Return = "k", len(h), now+1, now+2
		now += 2
		h = append(h, op)
	}
	version := uint64(0)
	for i := range 60 {
		add(Operation{Kind: Put, Value: Token(1, i), Outcome: Unknown})
		add(Operation{Kind: PutIf, Value: Token(2, i), IfVersion: version, Outcome: Unknown})
		version++
		add(Operation{Kind: Put, Value: Token(3, i), Outcome: Done, Version: version})
		add(Operation{Kind: Get, Found: true, Read: Token(3, i), Version: version, Outcome: Done})
		if i%10 == 9 { // one that shows
			version++
			add(Operation{Kind: Get, Found: true, Read: Token(1, i), Version: version, Outcome: Done})
		}
	}
	if v := h.Linearizable(20 * time.Second); !v.Linearizable {
		t.Errorf("a linearizable history is %s", v)
	}
	add(Operation{Kind: Get, Found: true, Read: Token(1, 99), Version: version + 1, Outcome: Done})
	add(Operation{Kind: Put, Value: Token(1, 99), Outcome: Unknown})
	if v := h[len(h)-7:].Linearizable(20 * time.Second); v.Linearizable || v.Undecided {
		t.Errorf("a value that is read before it is written: %s", v)
	}
}
