package raftgroup

import (
	"testing"
	"time"
)

// Claim: the entry clock follows the machine's clock, never runs backwards, and
// goes on as fast as time does where the machine's is behind it: after a jump ahead
// and back, after another leader's entries, after a restart. It does not run ahead
// for what others wrote meanwhile.
func TestEntryClockGoesOn(t *testing.T) {
	const hour = uint64(3_600_000)
	start := time.UnixMilli(1_700_000_000_000)
	var c entryClock
	at := func(wall time.Duration) uint64 { return c.next(start.Add(wall)) - uint64(start.UnixMilli()) }
	want := func(when string, got, want uint64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d ms, want %d", when, got, want)
		}
	}
	want("at the start", at(0), 0)
	want("with the machine's clock", at(time.Hour), hour)
	want("after a jump ahead", at(100*time.Hour), 100*hour)
	want("set back", at(2*time.Hour), 100*hour)
	for i := range 10_000 { // in steps of less than a millisecond
		at(2*time.Hour + time.Duration(i)*360*time.Microsecond)
	}
	want("3.6 s later", at(2*time.Hour+3600*time.Millisecond), 100*hour+3600)
	want("an hour later", at(3*time.Hour), 101*hour)
	if now := c.at(start.Add(4*time.Hour)) - uint64(start.UnixMilli()); now != 102*hour {
		t.Errorf("what an entry would have: %d ms, want %d", now, 102*hour)
	}
	want("what an entry would have changes nothing", at(3*time.Hour), 101*hour)

	c.raise(uint64(start.UnixMilli()) + 150*hour) // entries of another leader
	want("after another leader", at(10*time.Hour), 150*hour)
	want("an hour later", at(11*time.Hour), 151*hour)

	c = entryClock{}
	c.raise(uint64(start.UnixMilli()) + 300*hour) // from the log
	want("after a restart", at(0), 300*hour)
	want("an hour later", at(time.Hour), 301*hour)
}
