package history

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// A Verdict is the answer of Linearizable.
type Verdict struct {
	// Linearizable is true only if porcupine proved it within the time given.
	Linearizable bool
	// Undecided is true if the time did not suffice. It counts as a failure.
	Undecided bool
	// Key is the key whose history was refused, or on which the time ran out;
	// empty if all is well.
	Key string
}

// String says the verdict in words.
func (v Verdict) String() string {
	switch {
	case v.Linearizable:
		return "linearizable"
	case v.Undecided:
		return fmt.Sprintf("undecided: the check ran out of time at key %q", v.Key)
	}
	return fmt.Sprintf("not linearizable: key %q", v.Key)
}

// Linearizable checks the history of each key against a register that knows
// get, put, append, delete, conditional put, and versions that only grow. It
// gives up after timeout.
func (h History) Linearizable(timeout time.Duration) Verdict {
	deadline := time.Now().Add(timeout)
	keys, byKey := h.byKey()
	for _, key := range keys {
		left := time.Until(deadline)
		if left <= 0 {
			return Verdict{Undecided: true, Key: key}
		}
		switch h.check(byKey[key], left) {
		case porcupine.Illegal:
			return Verdict{Key: key}
		case porcupine.Unknown:
			return Verdict{Undecided: true, Key: key}
		}
	}
	return Verdict{Linearizable: true}
}

// Visualize writes porcupine's picture of one key's history to an HTML file.
func (h History) Visualize(key, file string, timeout time.Duration) error {
	_, byKey := h.byKey()
	_, info := porcupine.CheckOperationsVerbose(Model, h.porcupine(byKey[key]), timeout)
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := porcupine.Visualize(Model, info, f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Busiest is the key that most operations were about, the first of equals;
// empty for an empty history.
func (h History) Busiest() string {
	keys, byKey := h.byKey()
	busiest := ""
	for _, key := range keys {
		if len(byKey[key]) > len(byKey[busiest]) {
			busiest = key
		}
	}
	return busiest
}

// byKey returns the keys of the history in the order of their first operation,
// and for each which operations are about it.
func (h History) byKey() (keys []string, byKey map[string][]int32) {
	byKey = map[string][]int32{}
	for i := range h {
		k := h[i].Key
		if byKey[k] == nil {
			keys = append(keys, k)
		}
		byKey[k] = append(byKey[k], int32(i))
	}
	return keys, byKey
}

// check decides one key's history. Writes whose outcome is unknown and that
// nobody saw are what makes deciding expensive: each may have happened anywhere,
// or never. So it is first tried without them, which is a proof if it succeeds,
// because an operation that never returned may never have happened.
func (h History) check(numbers []int32, timeout time.Duration) porcupine.CheckResult {
	start := time.Now()
	all, seen := h.porcupine(numbers), []porcupine.Operation(nil)
	for _, op := range all {
		if op.Return != math.MaxInt64 {
			seen = append(seen, op)
		}
	}
	if len(seen) < len(all) && porcupine.CheckOperationsTimeout(Model, seen, timeout/2) == porcupine.Ok {
		return porcupine.Ok
	}
	return porcupine.CheckOperationsTimeout(Model, all, max(timeout-time.Since(start), 1))
}

// porcupine translates the operations on one key. What was not done is left
// out; what may or may not have been done returns when the first get that saw it
// did, or else never, so that it may take effect at any later time, or never; a
// get without an answer says nothing.
func (h History) porcupine(numbers []int32) []porcupine.Operation {
	var ops []porcupine.Operation
	for _, i := range numbers {
		op := &h[i]
		if op.Outcome == NotDone || op.Outcome == Unknown && op.Kind == Get {
			continue
		}
		end := op.Return
		if op.Outcome == Unknown {
			end = h.seenBy(numbers, op)
		}
		ops = append(ops, porcupine.Operation{ClientId: op.Client, Input: op, Output: op, Call: op.Call, Return: end})
	}
	return ops
}

// seenBy is the return of the first get that saw what op wrote, which must have
// taken effect by then; MaxInt64 if none did, or if that can't be told because
// the value is not unique.
func (h History) seenBy(numbers []int32, op *Operation) int64 {
	first := int64(math.MaxInt64)
	token := op.Kind == Append && isToken(op.Value)
	if op.Kind == Delete || op.Kind == Append && !token {
		return first
	}
	for _, i := range numbers {
		other := &h[i]
		switch {
		case other.Kind != Get && other != op && other.Value == op.Value:
			return math.MaxInt64
		case other.Kind != Get || other.Outcome != Done || !other.Found || other.Return >= first:
		case other.Read == op.Value || token && strings.Contains(other.Read, op.Value):
			first = max(other.Return, op.Call)
		}
	}
	return first
}

// isToken reports whether a value can't be part of another one by chance.
func isToken(v string) bool {
	return len(v) > 2 && v[0] == '[' && strings.IndexByte(v, ']') == len(v)-1 && strings.LastIndexByte(v, '[') == 0
}

// register is the state of one key. The value is kept as its length and an
// incremental hash (FNV-1a, 2 x 64 bits with different offsets), so that long
// values cost nothing.
type register struct {
	present bool
	sum     valueSum
	// version is the key's version, or, if open, a number that the version is
	// above: the last write's answer was lost. For an absent key it is the
	// highest version that the key ever had.
	version uint64
	open    bool
}

type valueSum struct {
	a, b   uint64
	length uint64
}

func (s valueSum) add(v string) valueSum {
	const prime = 1099511628211
	if s.length == 0 {
		s.a, s.b = 14695981039346656037, 0x9ae16a3b2f90404f
	}
	for i := range len(v) {
		s.a = (s.a ^ uint64(v[i])) * prime
		s.b = (s.b ^ uint64(v[i])) * (prime + 2)
	}
	s.length += uint64(len(v))
	return s
}

// Model is the register that a key must behave like.
var Model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		ok, next := step(state.(register), input.(*Operation))
		return ok, next
	},
	Equal: func(a, b any) bool { return a.(register) == b.(register) },
	Hash: func(state any) uint64 {
		r := state.(register)
		h := r.sum.a*31 + r.version
		if r.present {
			h ^= 1 << 63
		}
		return h
	},
	DescribeOperation: func(input, _ any) string { return input.(*Operation).String() },
	DescribeState: func(state any) string {
		r := state.(register)
		if !r.present {
			return "absent"
		}
		return fmt.Sprintf("%d bytes, version %d", r.sum.length, r.version)
	},
}

func step(r register, op *Operation) (bool, register) {
	done := op.Outcome == Done
	switch op.Kind {
	case Get:
		if !op.Found {
			return !r.present, r
		}
		sum := op.readSum
		if sum.length == 0 {
			sum = valueSum{}.add(op.Read)
		}
		return observe(r, sum, op.Version)
	case Put:
		return written(r, valueSum{}.add(op.Value), op, done)
	case Append:
		sum := valueSum{}.add(op.Value)
		if r.present {
			sum = r.sum.add(op.Value)
		}
		if done && op.Length != sum.length {
			return false, r
		}
		return written(r, sum, op, done)
	case Delete:
		if done && op.Found != r.present {
			return false, r
		}
		return true, register{version: r.version, open: r.open}
	case PutIf:
		return conditional(r, op, done)
	}
	return false, r
}

// observe is a read that saw a value at a version.
func observe(r register, sum valueSum, version uint64) (bool, register) {
	if !r.present || r.sum != sum {
		return false, r
	}
	if r.open && version > r.version {
		return true, register{present: true, sum: sum, version: version}
	}
	return !r.open && version == r.version, r
}

// written is a write that takes effect.
func written(r register, sum valueSum, op *Operation, done bool) (bool, register) {
	if !done {
		return true, register{present: true, sum: sum, version: r.version, open: true}
	}
	return op.Version > r.version, register{present: true, sum: sum, version: op.Version}
}

// conditional is a PutIf. Where the register's version is open, the condition
// may hold or not; the answer decides.
func conditional(r register, op *Operation, done bool) (bool, register) {
	var may, must bool
	switch {
	case !r.present:
		may = op.IfVersion == 0
		must = may
	case r.open:
		may = op.IfVersion > r.version
	default:
		may = op.IfVersion == r.version
		must = may
	}
	if !done {
		if may {
			return written(r, valueSum{}.add(op.Value), op, false)
		}
		return true, r
	}
	if op.Matched {
		if !may {
			return false, r
		}
		if r.present && r.open {
			r.version = op.IfVersion
		}
		return written(r, valueSum{}.add(op.Value), op, true)
	}
	if must || op.Version == op.IfVersion { // it held by the very answer that it did not
		return false, r
	}
	if !r.present {
		return op.Version == 0, r
	}
	return observe(r, r.sum, op.Version)
}

// String describes the operation on one line.
func (op *Operation) String() string {
	var call string
	switch op.Kind {
	case Get:
		call = fmt.Sprintf("get %q", op.Key)
	case Put:
		call = fmt.Sprintf("put %q %q", op.Key, short(op.Value))
	case Append:
		call = fmt.Sprintf("append %q %q", op.Key, short(op.Value))
	case Delete:
		call = fmt.Sprintf("delete %q", op.Key)
	case PutIf:
		call = fmt.Sprintf("put %q %q if version %d", op.Key, short(op.Value), op.IfVersion)
	}
	switch {
	case op.Outcome == Unknown:
		return call + ": outcome unknown"
	case op.Outcome == NotDone:
		return call + ": not done"
	case op.Kind == Get && op.Found:
		return fmt.Sprintf("%s: %q at %d", call, short(op.Read), op.Version)
	case op.Kind == PutIf && !op.Matched:
		return fmt.Sprintf("%s: version is %d", call, op.Version)
	case (op.Kind == Get || op.Kind == Delete) && !op.Found:
		return call + ": not found"
	}
	return fmt.Sprintf("%s: version %d", call, op.Version)
}

// shownBytesMax bounds a value in a description; of a longer one the two ends
// are shown.
const shownBytesMax = 24

func short(s string) string {
	if len(s) <= shownBytesMax {
		return s
	}
	return s[:8] + "..." + s[len(s)-shownBytesMax+11:]
}
