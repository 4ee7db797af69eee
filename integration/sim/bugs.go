package sim

import (
	"fmt"
	"reflect"
)

// Bugs are mistakes that a World makes on purpose, to prove that its checks
// find them. Each is planted in a model or in a message on its way; the machines
// themselves stay as they are.
type Bugs struct {
	// Of the modelled Raft: the promises that the machines rest on.

	AckUnsynced bool // followers acknowledge entries before they are synced
	VoteTwice   bool // a replica votes for every candidate of a term
	NoBarrier   bool // reads are served from applied state at once
	NoNoop      bool // read rounds before the leader's own entry is applied
	OldSnapshot bool // a received snapshot replaces a newer state
	CommitAlone bool // a leader commits what it alone has synced

	// Of a server.

	PhaseApart      bool // a read takes the phase from one state and the value from an older one
	ReadFrozen      bool // a frozen shard is read at the holder
	DedupStays      bool // what sessions executed is not known where a shard moved
	DropEarly       bool // the holder drops its copy without proof of a successor
	FreezeEarly     bool // the holder freezes before the receiver has the copy
	CreateUnclaimed bool // an owner creates a token without the claim
	Unfenced        bool // calls between groups reach whoever lives at an address
	TailSkipped     bool // the tail of changes is not sent
	PublishedApart  bool // a server's config is published before its records
	SharedQueue     bool // pages of handoffs use up the room of clients in the queue
	WordsForever    bool // what a receiver said once counts for ever
	Impatient       bool // a page has as much time over a slow link as over any other
	DrainedEarly    bool // a leaving group says at once that it is drained

	// Of a client and of the controller.

	RetryAsNew     bool // a write that got no answer is tried again under a new number
	ClaimForgotten bool // the controllers grant a claim to whoever asks
}

// BugNames lists the bugs by the names of their fields.
func BugNames() (names []string) {
	t := reflect.TypeFor[Bugs]()
	for i := range t.NumField() {
		names = append(names, t.Field(i).Name)
	}
	return names
}

// ParseBug returns the one bug of a name; an empty name stands for none.
func ParseBug(name string) (b Bugs, err error) {
	if name == "" {
		return b, nil
	}
	f := reflect.ValueOf(&b).Elem().FieldByName(name)
	if !f.IsValid() {
		return b, fmt.Errorf("no bug is called %q; there are %v", name, BugNames())
	}
	f.SetBool(true)
	return b, nil
}
