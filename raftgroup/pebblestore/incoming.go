package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// incoming implements store.Incoming.
type incoming struct {
	*aside
	number  uint64
	failure failStop // of this state only: a bad stream is not a bad disk
	used    atomic.Bool
}

// Receive implements store.Store. It reads the stream exactly to its end, and
// checks the files against the stream and every table block against its own
// checksum, so that damage that the sender did not notice is not passed on. An error
// of the own disk is a failure of the store.
func (s *Store) Receive(r io.Reader) (store.Incoming, error) {
	g, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer g.leave()
	in := &incoming{number: s.nextNumber()}
	in.failure.init(store.ErrBadStream, silence{}, nil)
	in.aside, err = s.newAside(s.path(stateName(in.number)), &in.failure)
	if err != nil {
		return nil, err
	}
	if err := in.receive(r); err != nil {
		if !errors.Is(err, store.ErrBadStream) && !errors.Is(err, errStream) {
			err = s.stop.fail(fmt.Errorf("receive: %w", err))
		}
		if failed := s.stop.err(); failed != nil {
			return nil, errors.Join(failed, in.release())
		}
		return nil, errors.Join(fmt.Errorf("pebblestore: receive: %w", err), in.release())
	}
	return in, nil
}

func (in *incoming) receive(r io.Reader) (err error) {
	defer in.stop.caught("receive", &err)
	if err := in.s.fs.MkdirAll(in.dir, 0o755); err != nil {
		return err
	}
	stream := &streamReader{r: r, fs: in.s.fs, buf: make([]byte, copyBufferSize), verify: in.verifyTable}
	if err := stream.stream(in.dir); err != nil {
		return err
	}
	if err := errors.Join(syncDir(in.s.fs, in.dir), syncDir(in.s.fs, in.s.opts.Dir)); err != nil {
		return err
	}
	g, err := in.enter() // opens it
	if err != nil {
		return err
	}
	g.leave()
	return nil
}

// Reader implements store.Incoming.
func (in *incoming) Reader() store.Reader { return in.aside }

// Adopt implements store.Incoming. New readers see the new state at once; Adopt
// returns when the old one is gone.
func (in *incoming) Adopt() error {
	s := in.s
	if in.used.Swap(true) {
		return store.ErrClosed
	}
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	g, err := s.enter()
	if err != nil {
		return errors.Join(err, in.release())
	}
	g.leave() // nobody but a writer replaces it
	_, err = in.shut()
	var next *generation
	if err == nil {
		next, err = s.openState(stateName(in.number), false)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pebblestore: adopt: %w", err), s.fs.RemoveAll(in.dir))
	}
	err = s.stop.write("adopt", func() error {
		return s.writePointer(pointer{number: in.number, status: statusActive})
	})
	if err != nil {
		return errors.Join(err, next.close())
	}
	return s.replace(next)
}

// replace puts next in force, and deletes what was there once it is unused. The
// caller holds the writer's place.
func (s *Store) replace(next *generation) error {
	old := s.current.Swap(next)
	err := s.stop.attempt("adopt", func() error {
		old.retire()
		<-old.idle
		return old.close()
	})
	if err := s.stop.err(); err != nil {
		return err
	}
	if err != nil {
		// The new state is in force and sound; the old one's end says nothing.
		s.stop.log.Error("close replaced state", "dir", old.dir, "error", err)
		return nil
	}
	if err := s.fs.RemoveAll(old.dir); err != nil {
		s.stop.log.Error("delete replaced state", "dir", old.dir, "error", err)
	}
	return nil
}

// Discard implements store.Incoming.
func (in *incoming) Discard() error {
	if in.used.Swap(true) {
		return nil
	}
	return in.release()
}
