// Package grouptest is the contract of raftgroup.StateMachine as tests: Run holds
// a machine to what a replicated machine must be, so that replicas that apply the
// same entries in different batches, after different crashes, and with different
// memories, end in the same bytes.
//
// Test support: it imports raftgroup, its store and its entries, and is imported
// by tests only. It starts no goroutine.
package grouptest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// A Script is what the machines under test apply: entries in the order of the
// log. Index and Term are set by Run. It should reach every kind of command,
// refusals included; a dozen entries are a good length.
type Script []entry.Entry

// unknownKind is a kind that no machine may define.
const unknownKind entry.Kind = 0xFF

// keyIndex is where the suite, in raftgroup's place, keeps the applied index.
var keyIndex = []byte{0xFF, 0xFF, 1}

// Run runs the contract. newMachine returns a machine that has not been Reset.
func Run(t *testing.T, newMachine func() raftgroup.StateMachine, script Script) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(suite{newMachine, number(script)}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// checks are the promises, each with the claim it checks.
var checks = []struct {
	name string
	run  func(s suite) error
}{
	{"EqualOnEveryReplica", suite.equalReplicas},
	{"BatchesDoNotMatter", suite.batches},
	{"ReplayAfterCrash", suite.crash},
	{"ResetForgetsOnlyCaches", suite.reset},
	{"ResetToAnotherState", suite.otherState},
	{"UnknownKindIsAnError", suite.unknownKind},
	{"StoreErrorsAreNotResults", suite.storeErrors},
	{"OwnKeysAreLeftAlone", suite.ownKeys},
}

type suite struct {
	newMachine func() raftgroup.StateMachine
	script     Script
}

func number(script Script) Script {
	out := append(Script(nil), script...)
	for i := range out {
		out[i].Index, out[i].Term = uint64(i+1), 1
	}
	return out
}

// A replica is a machine on its store.
type replica struct {
	machine raftgroup.StateMachine
	store   *store.Mem
	results [][]any // by entry
}

func (s suite) replica(on *store.Mem) (*replica, error) {
	r := &replica{machine: s.newMachine(), store: on, results: make([][]any, len(s.script))}
	if err := r.machine.Reset(on); err != nil {
		return nil, fmt.Errorf("reset: %w", err)
	}
	return r, nil
}

// apply applies entries in one batch. The commands' memory is overwritten when
// each call returns, as raftgroup may do.
func (r *replica) apply(entries ...entry.Entry) error {
	b, err := r.store.NewBatch()
	if err != nil {
		return err
	}
	defer b.Close()
	for _, e := range entries {
		lent := e
		lent.Commands = make([]entry.Command, len(e.Commands))
		for i, c := range e.Commands {
			lent.Commands[i] = entry.Command{Kind: c.Kind, Body: bytes.Clone(c.Body)}
		}
		bodies := append([]entry.Command(nil), lent.Commands...)
		results, err := r.machine.Apply(b, &lent)
		if err != nil {
			return fmt.Errorf("apply entry %d: %w", e.Index, err)
		}
		for _, c := range bodies {
			for i := range c.Body {
				c.Body[i] = 0xA5
			}
		}
		if len(results) != len(e.Commands) {
			return fmt.Errorf("entry %d: %d results for %d commands", e.Index, len(results), len(e.Commands))
		}
		r.results[e.Index-1] = results
		if err := b.Set(keyIndex, binary.BigEndian.AppendUint64(nil, e.Index)); err != nil {
			return err
		}
	}
	if err := b.Commit(); err != nil {
		return err
	}
	r.machine.Applied(entries[len(entries)-1].Index)
	return nil
}

// reference applies the script entry by entry, and returns the replica and the
// state behind each entry.
func (s suite) reference() (*replica, []*store.Mem, error) {
	r, err := s.replica(store.NewMem())
	if err != nil {
		return nil, nil, err
	}
	states := []*store.Mem{r.store.Clone()}
	for _, e := range s.script {
		if err := r.apply(e); err != nil {
			return nil, nil, err
		}
		states = append(states, r.store.Clone())
	}
	return r, states, nil
}

// same compares a replica that has applied everything with the reference. Results
// are compared from entry first on.
func (s suite) same(got, want *replica, first uint64, how string) error {
	for i := first; i < uint64(len(s.script)); i++ {
		if !reflect.DeepEqual(got.results[i], want.results[i]) {
			return fmt.Errorf("%s: the results of entry %d are %+v, want %+v", how, i+1, got.results[i], want.results[i])
		}
	}
	return sameState(got.store, want.store, how)
}

// sameState names the first key that differs.
func sameState(got, want *store.Mem, how string) error {
	if got.Hash() == want.Hash() {
		return nil
	}
	a, err := got.Iterate(nil, nil)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := want.Iterate(nil, nil)
	if err != nil {
		return err
	}
	defer b.Close()
	for {
		moreA, moreB := a.Next(), b.Next()
		switch {
		case moreA && moreB && bytes.Equal(a.Key(), b.Key()) && bytes.Equal(a.Value(), b.Value()):
			continue
		case moreA && (!moreB || bytes.Compare(a.Key(), b.Key()) < 0):
			return fmt.Errorf("%s: key %x is too much", how, a.Key())
		case moreB && (!moreA || bytes.Compare(a.Key(), b.Key()) > 0):
			return fmt.Errorf("%s: key %x is missing", how, b.Key())
		case moreA:
			return fmt.Errorf("%s: key %x is %x, want %x", how, a.Key(), a.Value(), b.Value())
		}
		return fmt.Errorf("%s: equal keys with unequal hashes", how)
	}
}

// equalReplicas: the same entries leave the same bytes and results.
func (s suite) equalReplicas() error {
	want, states, err := s.reference()
	if err != nil {
		return err
	}
	for range 3 { // the order of a map shows in some runs only
		got, err := s.replica(store.NewMem())
		if err != nil {
			return err
		}
		for i, e := range s.script {
			if err := got.apply(e); err != nil {
				return err
			}
			if err := sameState(got.store, states[i+1], fmt.Sprintf("after entry %d on a second replica", e.Index)); err != nil {
				return err
			}
		}
		if err := s.same(got, want, 0, "a second replica"); err != nil {
			return err
		}
	}
	return nil
}

// batches: it does not matter which entries share a batch.
func (s suite) batches() error {
	want, _, err := s.reference()
	if err != nil {
		return err
	}
	for _, size := range []int{2, 3, len(s.script)} {
		got, err := s.replica(store.NewMem())
		if err != nil {
			return err
		}
		for rest := s.script; len(rest) > 0; {
			n := min(size, len(rest))
			if err := got.apply(rest[:n]...); err != nil {
				return err
			}
			rest = rest[n:]
		}
		if err := s.same(got, want, 0, fmt.Sprintf("%d entries in a batch", size)); err != nil {
			return err
		}
	}
	return nil
}

// crash: whatever prefix of the batches survives, a new machine that applies the
// rest ends in the same state, and answers the same.
func (s suite) crash() error {
	want, _, err := s.reference()
	if err != nil {
		return err
	}
	for keep := 0; keep <= want.store.Unsynced(); keep++ {
		got, err := s.replica(want.store.Crash(keep))
		if err != nil {
			return err
		}
		first, err := appliedIndex(got.store)
		if err != nil {
			return err
		}
		for _, e := range s.script[first:] {
			if err := got.apply(e); err != nil {
				return err
			}
		}
		if err := s.same(got, want, first, fmt.Sprintf("after a crash behind entry %d", first)); err != nil {
			return err
		}
	}
	return nil
}

func appliedIndex(r store.Reader) (uint64, error) {
	b, ok, err := r.Get(keyIndex)
	if err != nil || !ok {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// reset: a Reset on the state that the machine has changes nothing.
func (s suite) reset() error {
	want, _, err := s.reference()
	if err != nil {
		return err
	}
	got, err := s.replica(store.NewMem())
	if err != nil {
		return err
	}
	for _, e := range s.script {
		if err := got.apply(e); err != nil {
			return err
		}
		if err := got.machine.Reset(got.store); err != nil {
			return fmt.Errorf("reset behind entry %d: %w", e.Index, err)
		}
	}
	return s.same(got, want, 0, "with a Reset behind each entry")
}

// otherState: after a Reset to another state, as by a snapshot, the machine
// remembers nothing of the former.
func (s suite) otherState() error {
	want, states, err := s.reference()
	if err != nil {
		return err
	}
	for from := range s.script {
		got, err := s.replica(store.NewMem())
		if err != nil {
			return err
		}
		for _, e := range s.script {
			if err := got.apply(e); err != nil {
				return err
			}
		}
		got.store = states[from].Clone()
		if err := got.machine.Reset(got.store); err != nil {
			return fmt.Errorf("reset to the state behind entry %d: %w", from, err)
		}
		for _, e := range s.script[from:] {
			if err := got.apply(e); err != nil {
				return err
			}
		}
		if err := s.same(got, want, uint64(from), fmt.Sprintf("after a Reset to the state behind entry %d", from)); err != nil {
			return err
		}
	}
	return nil
}

// unknownKind: a command that the machine does not know is an error, never
// skipped, wherever it stands in an entry.
func (s suite) unknownKind() error {
	_, states, err := s.reference()
	if err != nil {
		return err
	}
	for _, state := range []*store.Mem{states[0], states[len(states)-1]} {
		r, err := s.replica(state.Clone())
		if err != nil {
			return err
		}
		b, err := r.store.NewBatch()
		if err != nil {
			return err
		}
		e := entry.Entry{Index: uint64(len(s.script) + 1), Term: 1, Commands: []entry.Command{{Kind: unknownKind}}}
		_, err = r.machine.Apply(b, &e)
		b.Close()
		if err == nil {
			return errors.New("an unknown kind of command was applied")
		}
	}
	return nil
}

// storeErrors: an error of the store is an error of Apply: never "not found",
// never a refusal.
func (s suite) storeErrors() error {
	_, states, err := s.reference()
	if err != nil {
		return err
	}
	broken := errors.New("injected")
	const deepest = 8
	for i, e := range s.script {
		for nth := 1; nth <= deepest; nth++ {
			r, err := s.replica(states[i].Clone())
			if err != nil {
				return err
			}
			left, fired := nth, false
			r.store.SetHook(func(op store.Op) error {
				if op != store.OpGet && op != store.OpIterate && op != store.OpNext {
					return nil
				}
				if left--; left == 0 {
					fired = true
					return broken
				}
				return nil
			})
			b, err := r.store.NewBatch()
			if err != nil {
				return err
			}
			clone := e
			clone.Commands = append([]entry.Command(nil), e.Commands...)
			_, err = r.machine.Apply(b, &clone)
			b.Close()
			if fired && err == nil {
				return fmt.Errorf("entry %d was applied though its read %d failed", e.Index, nth)
			}
			if !fired {
				break
			}
		}
	}
	return nil
}

// ownKeys: the machine writes no key of raftgroup's.
func (s suite) ownKeys() error {
	want, _, err := s.reference()
	if err != nil {
		return err
	}
	it, err := want.store.Iterate([]byte{0xFF, 0xFF}, nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for it.Next() {
		if !bytes.Equal(it.Key(), keyIndex) {
			return fmt.Errorf("the machine wrote raftgroup's key %x", it.Key())
		}
	}
	return nil
}
