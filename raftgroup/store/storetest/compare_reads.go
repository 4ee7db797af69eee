package storetest

import (
	"bytes"
	"fmt"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// reader picks what to read from: the store, the batch or a snapshot.
func (c *comparison) reader() (name string, of func(*run) store.Reader, m *model) {
	b := int(c.byte())
	switch {
	case b%4 < 2 && c.batch != nil:
		return "batch", func(r *run) store.Reader { return r.batch }, c.batch
	case b%4 == 2 && len(c.snaps) > 0:
		i := (b / 4) % len(c.snaps)
		return fmt.Sprint("snapshot ", i), func(r *run) store.Reader { return r.snaps[i] }, &c.snaps[i]
	}
	return "store", func(r *run) store.Reader { return r.s }, &c.state
}

func (c *comparison) get() {
	name, of, m := c.reader()
	key := c.key()
	value, ok := m.get(string(key))
	c.each(fmt.Sprintf("%s: get %q", name, key), func(r *run) string {
		got, ok, err := of(r).Get(key)
		return fmt.Sprintf("%q %v %v", got, ok, err)
	}, fmt.Sprintf("%q %v <nil>", value, ok))
}

// walk makes an iterator, moves it a few times, and lets it run to the end.
func (c *comparison) walk() {
	name, of, m := c.reader()
	lower, upper := c.bound(), c.bound()
	want := m.iterate(lower, upper)
	var seeks [][]byte
	for range c.byte() % 4 {
		seeks = append(seeks, c.key())
	}
	script := func(it store.Iterator) string {
		var out bytes.Buffer
		for _, key := range seeks {
			fmt.Fprintln(&out, it.SeekGE(key), at(it))
			fmt.Fprintln(&out, it.Next(), at(it))
		}
		for it.Next() {
			fmt.Fprintln(&out, at(it))
		}
		fmt.Fprintln(&out, it.Next(), it.Close())
		return out.String()
	}
	c.each(fmt.Sprintf("%s: walk %q to %q, seeks %q", name, lower, upper, seeks), func(r *run) string {
		it, err := of(r).Iterate(lower, upper)
		if err != nil {
			return err.Error()
		}
		return script(it)
	}, script(want))
}

// at is the position of an iterator; a long value is told by its length.
func at(it store.Iterator) string {
	value := it.Value()
	return fmt.Sprintf("%q=%d x %q", it.Key(), len(value), value[:min(1, len(value))])
}

func (c *comparison) openSnapshot() {
	if len(c.snaps) == readersMax {
		return
	}
	c.note("open snapshot %d", len(c.snaps))
	c.ok("new snapshot", func(r *run) error {
		snap, err := r.s.NewSnapshot()
		r.snaps = append(r.snaps, snap)
		return err
	})
	c.snaps = append(c.snaps, c.state.clone())
}

// openIterator makes an iterator that lives across later steps.
func (c *comparison) openIterator() {
	if len(c.iters) == readersMax {
		return
	}
	lower, upper := c.bound(), c.bound()
	c.note("open iterator %d from %q to %q", len(c.iters), lower, upper)
	c.ok("iterate", func(r *run) error {
		it, err := r.s.Iterate(lower, upper)
		r.iters = append(r.iters, it)
		return err
	})
	m := c.state.clone()
	c.iters = append(c.iters, m.iterate(lower, upper))
}

func (c *comparison) moveIterator() {
	if len(c.iters) == 0 {
		return
	}
	b := c.byte()
	i := int(b/2) % len(c.iters)
	if b%2 == 0 {
		c.note("iterator %d: next", i)
		want := fmt.Sprint(c.iters[i].Next(), at(c.iters[i]))
		c.each("next", func(r *run) string { return fmt.Sprint(r.iters[i].Next(), at(r.iters[i])) }, want)
		return
	}
	key := c.key()
	c.note("iterator %d: seek %q", i, key)
	want := fmt.Sprint(c.iters[i].SeekGE(key), at(c.iters[i]))
	c.each("seek", func(r *run) string { return fmt.Sprint(r.iters[i].SeekGE(key), at(r.iters[i])) }, want)
}

// closeReaders closes all snapshots and iterators.
func (c *comparison) closeReaders() {
	if len(c.snaps)+len(c.iters) > 0 {
		c.note("close readers")
	}
	c.ok("close readers", func(r *run) error {
		for _, snap := range r.snaps {
			if err := snap.Close(); err != nil {
				return err
			}
		}
		for _, it := range r.iters {
			if err := it.Close(); err != nil {
				return err
			}
		}
		r.snaps, r.iters = nil, nil
		return nil
	})
	c.snaps, c.iters = nil, nil
}

// checkpoint keeps a stream of the present state for a later adopt.
func (c *comparison) checkpoint() {
	if len(c.streams) == streamsMax {
		return
	}
	c.note("checkpoint %d", len(c.streams))
	want := c.state.dump()
	c.each("checkpoint", func(r *run) string {
		cp, err := r.s.Checkpoint()
		if err != nil {
			return err.Error()
		}
		var stream bytes.Buffer
		n, err := cp.WriteTo(&stream)
		if err != nil || n != cp.Size() || n != int64(stream.Len()) {
			return fmt.Sprintf("wrote %d bytes (%d came), size %d, error %v", n, stream.Len(), cp.Size(), err)
		}
		r.streams = append(r.streams, stream.Bytes())
		got := dump(cp.Reader())
		if err := cp.Close(); err != nil {
			return err.Error()
		}
		return got
	}, want)
	c.streams = append(c.streams, c.state.clone())
}

// adopt receives an earlier state and puts it in force.
func (c *comparison) adopt() {
	if len(c.streams) == 0 || c.adoptions == adoptionMax {
		return
	}
	c.adoptions++
	c.endBatch(false)
	c.closeReaders()
	b := int(c.byte())
	i := b / 2 % len(c.streams)
	keep := b%2 == 0
	c.note("receive %d, adopt: %v", i, keep)
	c.each("receive", func(r *run) string {
		in, err := r.s.Receive(bytes.NewReader(r.streams[i]))
		if err != nil {
			return err.Error()
		}
		got := dump(in.Reader())
		end := in.Discard
		if keep {
			end = in.Adopt
		}
		if err := end(); err != nil {
			return err.Error()
		}
		return got
	}, c.streams[i].dump())
	if keep {
		c.state = c.streams[i].clone()
	}
	c.everything("after receiving")
}

// everything compares all that can be read now.
func (c *comparison) everything(when string) {
	c.each("the store "+when, func(r *run) string { return dump(r.s) }, c.state.dump())
	if c.batch != nil {
		c.each("the batch "+when, func(r *run) string { return dump(r.batch) }, c.batch.dump())
	}
	for i := range c.snaps {
		c.each("a snapshot "+when, func(r *run) string { return dump(r.snaps[i]) }, c.snaps[i].dump())
	}
}

// dump returns the whole state of a reader as text.
func dump(r store.Reader) string {
	it, err := r.Iterate(nil, nil)
	if err != nil {
		return err.Error()
	}
	var out bytes.Buffer
	for it.Next() {
		fmt.Fprintf(&out, "%s; ", at(it))
	}
	if err := it.Close(); err != nil {
		return err.Error()
	}
	return out.String()
}
