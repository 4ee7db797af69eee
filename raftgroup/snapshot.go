package raftgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/raftgroup/transport"
)

// A stream of a snapshot is, in big-endian order:
//
//	magic "SHOALSNP" | format u16 1 | index u64 | term u64 |
//	length u32 | configuration (see members) | CRC32C of all this u32 |
//	the stream of the store's checkpoint
const (
	snapshotMagic  = "SHOALSNP"
	snapshotFormat = 1
	// snapshotFixedBytes precede the configuration.
	snapshotFixedBytes = len(snapshotMagic) + 2 + 8 + 8 + 4
	// configurationBytesMax bounds what one announced length may allocate.
	configurationBytesMax = 1 << 20

	// liveID names the only snapshot there ever is: the machine's own state.
	liveID = "live"
)

var (
	errSnapshotStream = errors.New("the stream of a snapshot is damaged")
	errSnapshotOlder  = errors.New("the snapshot is older than the machine")
	errNotFrozen      = errors.New("the snapshot is not frozen yet")
	errStoreSwapped   = errors.New("the store was replaced while it was made durable")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// snapshots is Raft's snapshot store. There is nothing in it: the machine's
// store is the snapshot. List speaks from the machine's own position, Open
// streams a checkpoint of the store, and a snapshot that is taken only makes the
// store durable. A received one waits in the store, set aside, for Restore.
type snapshots struct {
	r *Replica

	mu struct {
		sync.Mutex
		received map[string]*received
		serial   uint64
	}
}

// received is a snapshot that is set aside and checked.
type received struct {
	header header
	state  store.Incoming
}

type header struct {
	index, term uint64
	members     members
}

func newSnapshots(r *Replica) *snapshots {
	s := &snapshots{r: r}
	s.mu.received = make(map[string]*received)
	return s
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	at, m, _ := s.r.fsm.snapshotOf()
	if at.index == 0 {
		return nil, nil
	}
	return []*raft.SnapshotMeta{meta(header{index: at.index, term: at.term, members: m}, 0)}, nil
}

func meta(h header, size int64) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version:            1,
		ID:                 liveID,
		Index:              h.index,
		Term:               h.term,
		Configuration:      h.members.config,
		ConfigurationIndex: h.members.index,
		Size:               size,
	}
}

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if id == liveID {
		return s.openLive()
	}
	s.mu.Lock()
	in := s.mu.received[id]
	s.mu.Unlock()
	if in == nil {
		return nil, nil, fmt.Errorf("no snapshot %q", id)
	}
	return meta(in.header, 0), &receivedReader{s: s, id: id, in: in}, nil
}

// openLive promises the machine's state. It is frozen when the transport knows
// that the receiver is there, and to which replica it goes.
func (s *snapshots) openLive() (*raft.SnapshotMeta, io.ReadCloser, error) {
	at, m, _ := s.r.fsm.snapshotOf()
	out := &liveReader{s: s, meta: meta(header{index: at.index, term: at.term, members: m}, 0)}
	return out.meta, out, nil
}

// A liveReader is the stream of the machine's own state. One goroutine uses it,
// which is Raft's for the receiver.
type liveReader struct {
	s    *snapshots
	meta *raft.SnapshotMeta // Raft reads the index from it when the state was sent

	pipe *io.PipeReader // nil: not frozen
	done chan struct{}  // closed once the checkpoint is freed
	to   raft.ServerID
}

var _ transport.Snapshot = (*liveReader)(nil)

// Freeze implements transport.Snapshot. The log keeps what follows the frozen
// state; holds says how long.
func (l *liveReader) Freeze(to raft.ServerID, req *raft.InstallSnapshotRequest) error {
	l.s.r.holds.begin(to, l.s.r.fsm.position().index)
	l.to = to
	cp, err := l.s.r.o.Store.Checkpoint()
	if err != nil {
		l.s.r.holds.end(to)
		err = fmt.Errorf("checkpoint: %w", err)
		l.s.r.fatal(err)
		return err
	}
	h, err := headerOf(cp.Reader())
	if err != nil {
		cp.Close()
		l.s.r.holds.end(to)
		return err
	}
	head := h.encode()
	*l.meta = *meta(h, int64(len(head))+cp.Size())
	req.LastLogIndex, req.LastLogTerm, req.Size = l.meta.Index, l.meta.Term, l.meta.Size
	req.Configuration, req.ConfigurationIndex = raft.EncodeConfiguration(l.meta.Configuration), l.meta.ConfigurationIndex
	pr, pw := io.Pipe()
	l.pipe, l.done = pr, make(chan struct{})
	go func() {
		defer close(l.done)
		_, err := pw.Write(head)
		if err == nil {
			_, err = cp.WriteTo(pw)
		}
		pw.CloseWithError(err)
		cp.Close()
	}()
	l.s.r.counters.snapshotsSent.Add(1)
	return nil
}

// Read implements io.Reader.
func (l *liveReader) Read(p []byte) (int, error) {
	if l.pipe == nil {
		return 0, errNotFrozen
	}
	return l.pipe.Read(p)
}

// Close implements io.Closer. It returns once the checkpoint is freed.
func (l *liveReader) Close() error {
	if l.pipe == nil {
		return nil
	}
	err := l.pipe.Close()
	<-l.done
	l.s.r.holds.sent(l.to)
	return err
}

func headerOf(r store.Reader) (header, error) {
	at, err := readPosition(r)
	if err != nil {
		return header{}, err
	}
	m, err := readMembers(r)
	return header{index: at.index, term: at.term, members: m}, err
}

func (h header) encode() []byte {
	config := h.members.encode()
	b := append(make([]byte, 0, snapshotFixedBytes+len(config)+4), snapshotMagic...)
	b = binary.BigEndian.AppendUint16(b, snapshotFormat)
	b = binary.BigEndian.AppendUint64(b, h.index)
	b = binary.BigEndian.AppendUint64(b, h.term)
	b = binary.BigEndian.AppendUint32(b, uint32(len(config)))
	b = append(b, config...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func readHeader(r io.Reader) (header, error) {
	b := make([]byte, snapshotFixedBytes)
	if _, err := io.ReadFull(r, b); err != nil {
		return header{}, fmt.Errorf("%w: %w", errSnapshotStream, err)
	}
	rest := b[len(snapshotMagic):]
	n := binary.BigEndian.Uint32(rest[18:])
	if string(b[:len(snapshotMagic)]) != snapshotMagic || binary.BigEndian.Uint16(rest) != snapshotFormat || n > configurationBytesMax {
		return header{}, fmt.Errorf("%w: header %x", errSnapshotStream, b)
	}
	tail := make([]byte, int(n)+4)
	if _, err := io.ReadFull(r, tail); err != nil {
		return header{}, fmt.Errorf("%w: %w", errSnapshotStream, err)
	}
	b = append(b, tail[:n]...)
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(tail[n:]) {
		return header{}, fmt.Errorf("%w: checksum of the header", errSnapshotStream)
	}
	m, err := decodeMembers(tail[:n])
	if err != nil {
		return header{}, err
	}
	return header{index: binary.BigEndian.Uint64(rest[2:]), term: binary.BigEndian.Uint64(rest[10:]), members: m}, nil
}

// install replaces the machine's state by a received one, if that is newer. It
// runs on Raft's FSM goroutine, while Raft's main loop waits for it.
func (s *snapshots) install(in *received) error {
	f := s.r.fsm
	f.swap <- struct{}{}
	defer func() { <-f.swap }()
	at := f.position()
	switch {
	case in.header.index == at.index && in.header.term == at.term:
		return in.state.Discard() // it is what we have
	case in.header.index <= at.index && !s.r.o.unsafe.adoptOlder:
		in.state.Discard()
		return fmt.Errorf("%w: it stands at %d, the machine at %d", errSnapshotOlder, in.header.index, at.index)
	}
	if err := s.adopt(in); err != nil {
		// The store may hold either state, and Raft would go on with this one.
		s.r.fatal(err)
		return err
	}
	s.r.counters.installed.Add(1)
	s.r.o.Machine.Applied(in.header.index)
	return nil
}

func (s *snapshots) adopt(in *received) error {
	f := s.r.fsm
	if err := in.state.Adopt(); err != nil {
		return fmt.Errorf("adopt the snapshot at %d: %w", in.header.index, err)
	}
	if err := s.r.o.Machine.Reset(s.r.o.Store); err != nil {
		return fmt.Errorf("reset the machine to %d: %w", in.header.index, err)
	}
	f.mu.Lock()
	f.mu.generation++
	f.mu.Unlock()
	if err := f.load(s.r.o.Store); err != nil {
		return err
	}
	if err := s.r.checkAddress(in.header.members); err != nil {
		return err
	}
	return s.r.guard.rebase(in.header.index, in.header.term)
}

// A durablePoint is Raft's snapshot of the machine: nothing but a promise that
// the store is durable past its index.
type durablePoint struct {
	f          *fsm
	index      uint64
	generation uint64
	locked     bool
}

// Persist implements raft.FSMSnapshot. After it, Raft cuts the log.
func (d *durablePoint) Persist(sink raft.SnapshotSink) error {
	d.f.swap <- struct{}{}
	d.locked = true // until Release: Raft is about to cut the log
	r := d.f.r
	if !r.o.unsafe.compactFirst {
		done := r.guard.watch("sync of the store")
		err := r.o.Store.Sync()
		done()
		if err != nil {
			err = fmt.Errorf("sync the store: %w", err)
			r.fatal(err)
			return err
		}
	}
	// A machine that failed has let Raft's count run ahead of its own.
	if err := r.failed(); err != nil {
		return err
	}
	if at, _, generation := d.f.snapshotOf(); generation != d.generation || at.index < d.index {
		return errStoreSwapped
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot. Raft calls it when the log is cut.
func (d *durablePoint) Release() {
	if d.locked {
		d.locked = false
		<-d.f.swap
	}
}
