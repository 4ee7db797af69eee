package raftgroup

import (
	"time"

	"github.com/shoalkv/shoal/raftgroup/entry"
)

// A pace is how fast entries are committed and applied, and what is queued for
// them. Guarded by packer.mu.
type pace struct {
	// entry is how long an entry takes from Raft's hands to its results, smoothed;
	// 0: none was measured yet.
	entry time.Duration
	// small and smallBytes are of the queued commands that share an entry with
	// others; large is how many go alone.
	small, smallBytes, large int
}

// measure takes in how long an entry took. It follows slower ones faster: to admit
// too much is worse than to admit too little.
func (p *pace) measure(took time.Duration) {
	switch d := took - p.entry; {
	case p.entry == 0:
		p.entry = took
	case d > 0:
		p.entry += d / 2
	default:
		p.entry += d / 8
	}
}

// count adds n commands of a size to what is queued, or takes them away.
func (p *pace) count(c entry.Command, entryBytes, n int) {
	if size := sizeOfCommand(c); size > entryBytes {
		p.large += n
	} else {
		p.small += n
		p.smallBytes += n * size
	}
}

// ahead is how many entries the queued commands make, at least.
func (p *pace) ahead(entryBytes int) int {
	return p.large + max((p.small+entryCommandsMax-1)/entryCommandsMax, (p.smallBytes+entryBytes-1)/entryBytes)
}

// waitLocked is how long a command that is queued now has to wait for its turn, by
// the pace of late; or, where the oldest entry in flight takes longer, by that. A
// queue that the next entries empty is no wait at all.
func (p *packer) waitLocked() time.Duration {
	ahead := p.mu.pace.ahead(p.r.o.EntryBytesMax)
	if ahead <= window {
		return 0
	}
	took := p.mu.pace.entry
	for b := range p.mu.inflight {
		took = max(took, time.Since(b.sent))
	}
	return time.Duration(ahead) * took / window
}
