package shardkv

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// What came to a group and what left it is logged in a line for each other group,
// once it has come to rest or has gone on for long; a record that changes for
// another reason, or is seen for the first time, is no move.
func TestMoveLog(t *testing.T) {
	var out bytes.Buffer
	log := hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true})
	logged := func() string {
		lines := strings.ReplaceAll(out.String(), "[INFO]  ", "")
		out.Reset()
		return lines
	}
	const shards = 8
	state := func(of func(i int) *kvfsm.Record) *placed {
		p := &placed{records: make([]*kvfsm.Record, shards)}
		for i := range p.records {
			p.records[i] = of(i)
		}
		return p
	}
	staging := func(int) *kvfsm.Record { return &kvfsm.Record{Staging: &kvfsm.Staging{From: kvfsm.Peer{Group: 1}}} }
	serving := func(int) *kvfsm.Record { return &kvfsm.Record{Phase: kvfsm.PhaseServing} }
	leaving := func(int) *kvfsm.Record { return &kvfsm.Record{Phase: kvfsm.PhaseLeaving, To: kvfsm.Peer{Group: 3}} }
	frozen := func(int) *kvfsm.Record { return &kvfsm.Record{Phase: kvfsm.PhaseFrozen, To: kvfsm.Peer{Group: 3}} }
	passed := func(int) *kvfsm.Record { return &kvfsm.Record{Phase: kvfsm.PhasePassed, To: kvfsm.Peer{Group: 3}} }
	first := func(n int, of, others func(int) *kvfsm.Record) func(int) *kvfsm.Record {
		return func(i int) *kvfsm.Record {
			if i < n {
				return of(i)
			}
			return others(i)
		}
	}
	none := func(int) *kvfsm.Record { return nil }

	var l moveLog
	now := time.Unix(1, 0)
	for _, step := range []struct {
		state  *placed
		moving bool
		after  time.Duration
		want   string
	}{
		{state(serving), false, 0, ""}, // found so, by a new leader
		{state(none), false, 0, ""},
		{state(first(3, serving, none)), false, 0, "created 3 shards\n"},
		{state(staging), true, 0, ""},
		{state(first(2, serving, staging)), true, time.Second, ""},
		{state(first(2, serving, staging)), true, movesEach, "took 2 shards from group 1\n"},
		{state(serving), false, 0, "took 6 shards from group 1\n"},
		{state(leaving), true, 0, ""},
		{state(frozen), true, 0, ""},
		{state(first(1, passed, frozen)), false, 0, "handed 1 shard over to group 3\n"},
		{state(first(1, passed, frozen)), false, time.Hour, ""},
	} {
		now = now.Add(step.after)
		l.look(log, step.state, step.moving, now)
		if got := logged(); got != step.want {
			t.Errorf("logged %q; want %q", got, step.want)
		}
	}
	l.look(log, state(passed), true, now)
	l.write(log)
	if got := logged(); got != "handed 7 shards over to group 3\n" {
		t.Errorf("at the end: logged %q", got)
	}
}
