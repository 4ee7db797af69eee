package raftgroup

import (
	"github.com/shoalkv/shoal/raftgroup/entry"
)

// A Submission is a list of commands on its way, which nobody has to wait for: see
// Replica.Submit. Safe for concurrent use.
type Submission struct {
	p *packer
	c *call
}

// Submit admits commands as ProposeAll does and returns at once. It refuses them,
// with a BusyError, where what is queued already would take longer than
// Options.QueueTimeMax: who comes first is served in time, instead of everyone too
// late. The bodies may be reused only when Done is closed.
//
// The error is one of those of Propose, ErrNotDone throughout.
func (r *Replica) Submit(commands []entry.Command) (*Submission, error) {
	c, err := r.packer.submit(commands, foreground)
	if err != nil {
		return nil, err
	}
	return &Submission{p: r.packer, c: c}, nil
}

// Done is closed once every command has its result. It always is, at the latest
// when the replica closes.
func (s *Submission) Done() <-chan struct{} { return s.c.done }

// Results returns what is known: for each command its result, as ProposeAll has
// it, or nil while it is on its way. The slice is the caller's.
func (s *Submission) Results() []any {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return append([]any(nil), s.c.results...)
}

// Withdraw takes back the commands that are still queued: they are not done,
// because of reason. The others stay on their way.
func (s *Submission) Withdraw(reason error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.withdrawLocked(s.c, reason)
	s.p.idleLocked()
}
