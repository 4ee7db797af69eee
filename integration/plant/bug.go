package main

import "github.com/shoalkv/shoal/integration/overlay"

// A bug is a mistake that the product does not make, and who must notice it.
type bug struct {
	name string
	// source says whose mistake it is; the lists set it for all of theirs.
	source string
	edits  []overlay.Edit
	// catchers are asked in order, until one notices: the cheap ones first.
	catchers []catcher
}

// one is the edit of a bug that needs no other.
var one = overlay.One

// everything is all lists, in the order of the table.
func everything() []bug {
	var all []bug
	for _, l := range []struct {
		source string
		bugs   []bug
	}{
		{"handoff protocol", handoffBugs},
		{"repair", repairBugs},
		{"exactly once", onceBugs},
		{"classic", classicBugs},
		{"shipped by others", shippedBugs},
		{"read path", readBugs},
		{"Raft and storage", raftBugs},
		{"controller", controllerBugs},
		{"client", clientBugs},
		{"judge", judgeBugs},
		{"command line", commandBugs},
		{"found here", foundBugs},
	} {
		for _, b := range l.bugs {
			b.source = l.source
			all = append(all, b)
		}
	}
	return all
}
