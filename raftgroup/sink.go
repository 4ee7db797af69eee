package raftgroup

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// Create implements raft.SnapshotStore. Raft calls it for a snapshot of its own,
// to which nothing is written, and for one that it receives.
func (s *snapshots) Create(_ raft.SnapshotVersion, index, term uint64, _ raft.Configuration, _ uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.serial++
	return &sink{s: s, id: "received-" + strconv.FormatUint(s.mu.serial, 10), index: index, term: term}, nil
}

// A sink takes a received snapshot into the store, aside. Raft's main loop
// writes to it; the store reads the other end of the pipe in a goroutine that
// ends with Close or Cancel.
type sink struct {
	s           *snapshots
	id          string
	index, term uint64

	pipe   *io.PipeWriter // nil before the first Write
	result chan receipt   // buffered 1
	ended  bool
}

type receipt struct {
	in  *received
	err error
}

// ID implements raft.SnapshotSink.
func (k *sink) ID() string { return k.id }

// Write implements raft.SnapshotSink.
func (k *sink) Write(p []byte) (int, error) {
	if k.pipe == nil {
		pr, pw := io.Pipe()
		k.pipe, k.result = pw, make(chan receipt, 1)
		go func() {
			in, err := k.receive(pr)
			if err == nil {
				// Nothing may follow.
				if _, extra := pr.Read(make([]byte, 1)); extra == nil {
					in.state.Discard()
					in, err = nil, fmt.Errorf("%w: bytes behind the end", errSnapshotStream)
				}
			}
			pr.CloseWithError(err)
			k.result <- receipt{in, err}
		}()
	}
	return k.pipe.Write(p)
}

func (k *sink) receive(r io.Reader) (*received, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	if h.index != k.index || h.term != k.term {
		return nil, fmt.Errorf("%w: it stands at %d of term %d, announced was %d of term %d",
			errSnapshotStream, h.index, h.term, k.index, k.term)
	}
	state, err := k.s.r.o.Store.Receive(r)
	if err != nil {
		return nil, fmt.Errorf("receive a snapshot: %w", err)
	}
	if err := checkState(state, h); err != nil {
		state.Discard()
		if errors.Is(err, errFeature) {
			k.s.r.fatal(err) // the group has gone where this version can't follow
		}
		return nil, err
	}
	return &received{header: h, state: state}, nil
}

// checkState compares the header with what the state says of itself.
func checkState(state store.Incoming, h header) error {
	own, err := headerOf(state.Reader())
	if err != nil {
		return err
	}
	if own.index != h.index || own.term != h.term {
		return fmt.Errorf("%w: the state stands at %d of term %d, its header says %d of term %d",
			errSnapshotStream, own.index, own.term, h.index, h.term)
	}
	return nil
}

// Close implements raft.SnapshotSink.
func (k *sink) Close() error {
	if k.ended || k.pipe == nil {
		k.ended = true
		return nil
	}
	k.ended = true
	k.pipe.Close()
	got := <-k.result
	if got.err != nil {
		return got.err
	}
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	k.s.mu.received[k.id] = got.in
	return nil
}

// Cancel implements raft.SnapshotSink.
func (k *sink) Cancel() error {
	if k.ended || k.pipe == nil {
		k.ended = true
		return nil
	}
	k.ended = true
	k.pipe.CloseWithError(errSnapshotStream)
	if got := <-k.result; got.in != nil {
		return got.in.state.Discard()
	}
	return nil
}

// receivedReader carries a received snapshot through Raft to Restore. There is
// nothing to read: the state is in the store already.
type receivedReader struct {
	s  *snapshots
	id string
	in *received
}

// Read implements io.Reader.
func (*receivedReader) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer: whatever was not adopted is thrown away.
func (r *receivedReader) Close() error {
	r.s.mu.Lock()
	delete(r.s.mu.received, r.id)
	r.s.mu.Unlock()
	return r.in.state.Discard()
}

// discard throws away what was received and never adopted.
func (s *snapshots) discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, in := range s.mu.received {
		in.state.Discard()
		delete(s.mu.received, id)
	}
}
