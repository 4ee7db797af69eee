package sim

import (
	"fmt"
	"io"
	"time"
)

// what names a kind of traced event.
type what uint8

const (
	traceElected what = iota
	traceDeposed
	traceAppended
	traceApplied
	traceReplayed
	traceSnapshot
	traceCrash
	traceRestart
	tracePause
	traceLimp
	traceCut
	traceHeal
	traceClock
	traceCall
	traceReturn
	traceAttempt
	traceCommand
	traceChange
	traceDrained
	traceLost
	traceRead
	tracePoll
	traceState
	traceReport
)

var traceNames = [...]string{"elected", "deposed", "appended", "applied", "replayed", "snapshot", "crash", "restart",
	"pause", "limp", "cut", "heal", "clock", "call", "return", "attempt", "command", "change", "drained", "lost", "read", "poll", "state", "report"}

// A trace is the record of a run: always its hash, its text if somebody reads
// it.
type trace struct {
	hash uint64
	out  io.Writer // nil: nobody
	now  *time.Duration
}

// note records an event at a node, or another place that has a number.
func (t *trace) note(k what, who int, a, b uint64) {
	const prime = 0x9E3779B97F4A7C15
	h := t.hash
	for _, v := range [...]uint64{uint64(*t.now), uint64(k)<<32 | uint64(uint32(who)), a, b} {
		h = (h ^ v) * prime
		h ^= h >> 29
	}
	t.hash = h
	if t.out != nil {
		fmt.Fprintf(t.out, "%12v %-9s %3d %d %d\n", *t.now, traceNames[k], who, a, b)
	}
}

// on reports whether texts are wanted; building them costs time.
func (t *trace) on() bool { return t.out != nil }

// text adds words for people, which are not part of the hash.
func (t *trace) text(format string, args ...any) {
	if t.out != nil {
		fmt.Fprintf(t.out, "%12v   "+format+"\n", append([]any{*t.now}, args...)...)
	}
}
