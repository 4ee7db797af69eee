package raftgroup

import "slices"

// patience is how many entries may go by without a waiting background command.
const patience = 4

// A queue holds the commands that wait to be packed, in two classes. Foreground
// commands have callers who wait; background commands (the copying of a shard)
// are many and large, and take what room the others leave: else a client's write
// would stand behind megabytes of copies. Within a class the order is that of
// arrival. Guarded by packer.mu.
type queue struct {
	foreground, background line
	passed                 int // entries since background last had its turn while waiting
}

func (q *queue) empty() bool { return q.foreground.waiting+q.background.waiting == 0 }

// of returns the line in which the commands of a class stand.
func (q *queue) of(c class) *line {
	if c == background {
		return &q.background
	}
	return &q.foreground
}

// add puts commands at the end of their line, or at the front of all.
func (q *queue) add(all []*pending, front bool) {
	if front {
		q.foreground.lead(all)
	} else {
		q.of(all[0].call.class).add(all)
	}
}

// cut takes the commands of the next entry: foreground first, then background
// in the room that is left. A command larger than an entry goes alone. Nothing
// of the background is taken while busy says that an entry with background
// commands is in flight: one place of the window stays free for the others.
// Background commands that never fit beside the others get an entry of their own
// after patience entries.
func (q *queue) cut(bytesMax int, busy bool) []*pending {
	waiting := q.background.waiting > 0 && !busy
	if waiting && (q.foreground.waiting == 0 || q.passed >= patience) {
		q.passed = 0
		return q.background.takeFirst(nil, bytesMax)
	}
	taken := q.foreground.takeFirst(nil, bytesMax)
	if waiting {
		beside := len(taken)
		taken = q.background.takeFirst(taken, bytesMax)
		if q.passed++; len(taken) > beside {
			q.passed = 0
		}
	}
	return taken
}

// leave notes that a command which waited was settled.
func (q *queue) leave(p *pending) { q.of(p.call.class).leave() }

// takeAll empties the queue.
func (q *queue) takeAll() []*pending {
	all := slices.Concat(q.foreground.list[q.foreground.head:], q.background.list[q.background.head:])
	q.foreground, q.background = line{}, line{}
	return slices.DeleteFunc(all, (*pending).isSettled)
}

// A line holds the commands of one class. One that was settled has been withdrawn,
// and keeps its place until the line is cut there, or until less than half of the
// list waits: so a withdrawal looks at nobody else's commands, and what is gone
// never takes more room than what waits.
type line struct {
	list    []*pending
	head    int // where those begin that were not taken yet
	waiting int // how many of them were not withdrawn
}

func (l *line) add(all []*pending) {
	l.list = append(l.list, all...)
	l.waiting += len(all)
}

// lead puts commands at the front.
func (l *line) lead(all []*pending) {
	l.list, l.head = slices.Concat(all, l.list[l.head:]), 0
	l.waiting += len(all)
}

// takeFirst moves commands from the front behind taken, as long as the entry stays
// within its limits; at least one into an empty entry.
func (l *line) takeFirst(taken []*pending, bytesMax int) []*pending {
	bytes := 0
	for _, p := range taken {
		bytes += sizeOfCommand(p.command)
	}
	for l.waiting > 0 && len(taken) < entryCommandsMax {
		if p := l.list[l.head]; !p.settled {
			size := sizeOfCommand(p.command)
			if len(taken) > 0 && bytes+size > bytesMax {
				break
			}
			bytes += size
			taken = append(taken, p)
			l.waiting--
		}
		l.list[l.head] = nil
		l.head++
	}
	l.compact()
	return taken
}

func (l *line) leave() {
	l.waiting--
	l.compact()
}

// compact forgets what was taken and withdrawn, once that is more than what waits.
func (l *line) compact() {
	if len(l.list) <= 2*l.waiting {
		return
	}
	kept := slices.DeleteFunc(l.list[l.head:], (*pending).isSettled)
	n := copy(l.list, kept)
	clear(l.list[n:])
	l.list, l.head = l.list[:n], 0
}
