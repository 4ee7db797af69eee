package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// T is what Compare needs of a testing.TB; a *rapid.T has it too.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Compare runs a program, any bytes, on all stores and on a sorted list at
// once, and fails at the first difference. The stores must be empty; they are
// left open. The program decides everything, so a failure replays.
func Compare(t T, program []byte, stores ...store.Store) {
	t.Helper()
	if len(program) > programMax {
		program = program[:programMax]
	}
	c := &comparison{t: t, program: program}
	for _, s := range stores {
		c.runs = append(c.runs, &run{s: s})
	}
	for len(c.program) > 0 {
		c.step()
	}
	c.endBatch(false)
	c.closeReaders()
	c.everything("at the end")
}

// Program returns a random program of n bytes, the same for the same seed.
func Program(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	program := make([]byte, n)
	for i := range program {
		program[i] = byte(r.Uint32())
	}
	return program
}

const (
	programMax  = 1 << 12
	readersMax  = 3
	streamsMax  = 4
	adoptionMax = 12 // each costs opening a database
)

// run is one of the compared stores with what is open on it.
type run struct {
	s       store.Store
	batch   store.Batch // nil when none is open
	snaps   []store.Snapshot
	iters   []store.Iterator
	streams [][]byte
}

// comparison is a program under way. The models stand beside what they model.
type comparison struct {
	t       T
	program []byte
	trace   []string
	runs    []*run

	state     model
	batch     *model
	snaps     []model
	iters     []*modelIterator
	streams   []model
	adoptions int
}

// byte returns the next byte of the program, 0 at its end.
func (c *comparison) byte() byte {
	if len(c.program) == 0 {
		return 0
	}
	b := c.program[0]
	c.program = c.program[1:]
	return b
}

// key returns one of few keys, so that operations meet; many are prefixes of
// others or border on them.
func (c *comparison) key() []byte {
	const letters = "\x00ab\xff"
	b := c.byte()
	key := []byte{}
	for n := int(b>>6) % 4; n > 0; n-- {
		key = append(key, letters[b%4])
		b >>= 2
	}
	return key
}

// bound is a key or nil.
func (c *comparison) bound() []byte {
	if c.byte()%4 == 0 {
		return nil
	}
	return c.key()
}

// value is empty, short, or long enough to be worth a block of its own.
func (c *comparison) value() []byte {
	b := c.byte()
	return bytes.Repeat([]byte{b}, []int{0, 1, 10, 3000}[b%4])
}

func (c *comparison) step() {
	switch op := c.byte() % 32; {
	case op < 8:
		c.set()
	case op < 11:
		c.delete()
	case op < 13:
		c.deleteRange()
	case op < 16:
		c.endBatch(true)
	case op < 17:
		c.endBatch(false)
	case op < 20:
		c.get()
	case op < 23:
		c.walk()
	case op < 24:
		c.openSnapshot()
	case op < 25:
		c.openIterator()
	case op < 27:
		c.moveIterator()
	case op < 28:
		c.closeReaders()
	case op < 29:
		c.note("sync")
		c.each("sync", func(r *run) string { return fmt.Sprint(r.s.Sync()) }, "<nil>")
	case op < 30:
		c.checkpoint()
	case op < 31:
		c.adopt()
	default:
		c.everything("in between")
	}
}

// note adds a line to what a failure prints.
func (c *comparison) note(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
}

// each wants every store to answer as the model does.
func (c *comparison) each(what string, ask func(*run) string, want string) {
	c.t.Helper()
	for _, r := range c.runs {
		if got := ask(r); got != want {
			c.t.Fatalf("%T: %s:\n got %q\nwant %q\nafter:\n%s", r.s, what, got, want,
				strings.Join(c.trace, "\n"))
		}
	}
}

// ok is each for a step that must succeed.
func (c *comparison) ok(what string, do func(*run) error) {
	c.t.Helper()
	c.each(what, func(r *run) string { return fmt.Sprint(do(r)) }, "<nil>")
}

// write makes sure that a batch is open.
func (c *comparison) write() {
	if c.batch != nil {
		return
	}
	c.note("new batch")
	c.ok("new batch", func(r *run) (err error) {
		r.batch, err = r.s.NewBatch()
		return err
	})
	m := c.state.clone()
	c.batch = &m
}

func (c *comparison) set() {
	c.write()
	key, value := c.key(), c.value()
	c.note("set %q to %d x %q", key, len(value), value[:min(1, len(value))])
	if len(key) == 0 {
		c.each("set", func(r *run) string { return fmt.Sprint(r.batch.Set(key, value)) }, store.ErrEmptyKey.Error())
		return
	}
	c.ok("set", func(r *run) error { return mangling(r.batch.Set, key, value) })
	c.batch.set(string(key), string(value))
}

func (c *comparison) delete() {
	c.write()
	key := c.key()
	c.note("delete %q", key)
	c.ok("delete", func(r *run) error { return r.batch.Delete(key) })
	c.batch.deleteRange(string(key), string(key)+"\x00")
}

func (c *comparison) deleteRange() {
	c.write()
	lower, upper := c.key(), c.key()
	c.note("delete from %q to %q", lower, upper)
	c.ok("delete range", func(r *run) error { return mangling(r.batch.DeleteRange, lower, upper) })
	c.batch.deleteRange(string(lower), string(upper))
}

// mangling calls f with copies, and spoils them afterwards.
func mangling(f func(a, b []byte) error, a, b []byte) error {
	a, b = append([]byte{}, a...), append([]byte{}, b...)
	err := f(a, b)
	mangle(a)
	mangle(b)
	return err
}

// endBatch commits the open batch or drops it.
func (c *comparison) endBatch(commit bool) {
	if c.batch == nil {
		return
	}
	c.note("end batch, commit: %v", commit)
	if commit {
		c.ok("commit", func(r *run) error { return r.batch.Commit() })
		c.state = *c.batch
	}
	c.ok("close batch", func(r *run) error { return r.batch.Close() })
	c.batch = nil
}
