package raftgroup

// patience is how many entries may go by without a waiting background command.
const patience = 4

// A queue holds the commands that wait to be packed, in two classes. Foreground
// commands have callers who wait; background commands (the copying of a shard)
// are many and large, and take what room the others leave: else a client's write
// would stand behind megabytes of copies. Within a class the order is that of
// arrival. Guarded by packer.mu.
type queue struct {
	foreground, background []*pending
	passed                 int // entries since background last had its turn while waiting
}

func (q *queue) empty() bool { return len(q.foreground)+len(q.background) == 0 }

// add puts commands at the end of their class, or at the front of all.
func (q *queue) add(all []*pending, front bool) {
	switch {
	case front:
		q.foreground = append(all, q.foreground...)
	case all[0].call.class == background:
		q.background = append(q.background, all...)
	default:
		q.foreground = append(q.foreground, all...)
	}
}

// cut takes the commands of the next entry: foreground first, then background
// in the room that is left. A command larger than an entry goes alone. Nothing
// of the background is taken while busy says that an entry with background
// commands is in flight: one place of the window stays free for the others.
// Background commands that never fit beside the others get an entry of their own
// after patience entries.
func (q *queue) cut(bytesMax int, busy bool) []*pending {
	waiting := len(q.background) > 0 && !busy
	if waiting && (len(q.foreground) == 0 || q.passed >= patience) {
		q.passed = 0
		return takeFirst(&q.background, nil, bytesMax)
	}
	taken := takeFirst(&q.foreground, nil, bytesMax)
	if waiting {
		beside := len(taken)
		taken = takeFirst(&q.background, taken, bytesMax)
		if q.passed++; len(taken) > beside {
			q.passed = 0
		}
	}
	return taken
}

// takeFirst moves commands from the front of list behind taken, as long as the
// entry stays within its limits; at least one into an empty entry.
func takeFirst(list *[]*pending, taken []*pending, bytesMax int) []*pending {
	bytes, n := 0, 0
	for _, p := range taken {
		bytes += sizeOfCommand(p.command)
	}
	for n < len(*list) && len(taken) < entryCommandsMax {
		size := sizeOfCommand((*list)[n].command)
		if len(taken) > 0 && bytes+size > bytesMax {
			break
		}
		bytes += size
		taken = append(taken, (*list)[n])
		n++
	}
	drop(list, n)
	return taken
}

// drop removes the first n of list, and forgets them.
func drop(list *[]*pending, n int) {
	rest := copy(*list, (*list)[n:])
	clear((*list)[rest:])
	*list = (*list)[:rest]
}

// withdraw removes every command for which gone is true, telling each to removed.
func (q *queue) withdraw(gone func(*pending) bool, removed func(*pending)) {
	for _, list := range []*[]*pending{&q.foreground, &q.background} {
		kept := (*list)[:0]
		for _, p := range *list {
			if gone(p) {
				removed(p)
			} else {
				kept = append(kept, p)
			}
		}
		clear((*list)[len(kept):])
		*list = kept
	}
}
