package route

import (
	"testing"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Claim: whatever the clocks of groups and the floors of shards are, a client
// that writes to all of them in turn finds a date for its session that the next
// shard takes, after two refusals at most; also long after, and though clocks
// are set right meanwhile.
func TestSessionIsDatedForEveryShard(t *testing.T) {
	const second, ahead = 1000, 60 * 1000
	shards := []struct{ clock, floor uint64 }{
		{clock: 100 * second},                        // right
		{clock: 100 * second, floor: 700 * second},   // came from a group whose clock was wrong
		{clock: 7000 * second, floor: 3000 * second}, // wrong still
		{clock: 40 * second},                         // slow
	}
	for _, order := range [][]int{{1, 0}, {0, 1}, {2, 1, 0}, {1, 1, 2, 2, 0, 0}, {3, 2, 1, 0}, {2, 2, 2, 1, 1, 1}} {
		var b Book
		now := uint64(100 * second)
		b.Observe(7000 * second)
		for round := range 40 {
			at := shards[order[round%len(order)]]
			elapsed := now - 100*second
			at.clock += elapsed
			if round > 20 {
				at.clock = max(at.clock, 8000*second) // set right: all are fast now
			}
			dated := max(at.clock, at.floor)
			refusals := 0
			for {
				s, seq := b.Begin(now, func() shardcfg.SessionID { return shardcfg.SessionID{1} })
				tooOld, tooYoung := s.BirthMS < at.floor, s.BirthMS > dated+ahead
				told := at.clock // a floor is told to who is below it
				if tooOld {
					told = dated
				}
				b.Observe(told)
				if !tooOld && !tooYoung {
					s.Finish(seq)
					break
				}
				if refusals++; refusals > 2 {
					t.Fatalf("order %v, round %d: a session of %d is refused again, at clock %d and floor %d", order, round, s.BirthMS, at.clock, at.floor)
				}
				b.Refused(s, seq, tooYoung, told, now)
			}
			now += 20 * second
		}
	}
}
