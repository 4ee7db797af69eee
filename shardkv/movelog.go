package shardkv

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvfsm"
)

// movesEach is how often moves are logged while they go on.
const movesEach = 10 * time.Second

// A moveLog tells the operator which shards came and went: one line for many
// shards. It compares what is published with what was, so that it tells what is
// applied, whoever proposed it. It belongs to the goroutine of the mover.
type moveLog struct {
	before     *placed // nil: nothing was seen yet
	took, gave map[shardcfg.GroupID]int
	created    int
	since      time.Time // of the oldest that is not logged; zero: none
}

// look takes in the published state of one moment, and logs what came and went
// once that has come to rest, or has gone on for long.
func (l *moveLog) look(log hclog.Logger, p *placed, moving bool, now time.Time) {
	if l.before != nil && l.before != p {
		for i, r := range p.records {
			if was := l.before.records[i]; r != nil && was != r {
				l.note(was, r, now)
			}
		}
	}
	l.before = p
	if !l.since.IsZero() && (!moving || now.Sub(l.since) >= movesEach) {
		l.write(log)
	}
}

// note counts the change of one record.
func (l *moveLog) note(was, is *kvfsm.Record, now time.Time) {
	if l.took == nil {
		l.took, l.gave = map[shardcfg.GroupID]int{}, map[shardcfg.GroupID]int{}
	}
	var before kvfsm.Record
	if was != nil {
		before = *was
	}
	switch {
	case !before.Phase.Serves() && is.Phase.Serves() && before.Staging != nil:
		l.took[before.Staging.From.Group]++
	case before.Phase == kvfsm.PhaseAbsent && is.Phase.Serves():
		l.created++
	case before.Phase == kvfsm.PhaseFrozen && is.Phase == kvfsm.PhasePassed:
		l.gave[is.To.Group]++
	default:
		return
	}
	if l.since.IsZero() {
		l.since = now
	}
}

// write logs what was counted, and begins anew.
func (l *moveLog) write(log hclog.Logger) {
	shards := func(n int) string {
		if n == 1 {
			return "1 shard"
		}
		return fmt.Sprintf("%d shards", n)
	}
	if l.created > 0 {
		log.Info("created " + shards(l.created))
	}
	for _, gid := range slices.Sorted(maps.Keys(l.took)) {
		log.Info(fmt.Sprintf("took %s from group %d", shards(l.took[gid]), gid))
	}
	for _, gid := range slices.Sorted(maps.Keys(l.gave)) {
		log.Info(fmt.Sprintf("handed %s over to group %d", shards(l.gave[gid]), gid))
	}
	l.created, l.since = 0, time.Time{}
	clear(l.took)
	clear(l.gave)
}
