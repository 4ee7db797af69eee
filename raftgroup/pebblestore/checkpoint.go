package pebblestore

import (
	"errors"
	"fmt"
	"io"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// checkpoint implements store.Checkpoint: hard links to the table files, and
// copies of the log and the manifest, which are small.
type checkpoint struct {
	*aside
	files []streamFile
}

// Checkpoint implements store.Store. What it freezes is durable from then on.
func (s *Store) Checkpoint() (store.Checkpoint, error) {
	if err := s.Sync(); err != nil {
		return nil, err
	}
	g, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer g.leave()
	dir := s.path(checkpointName(s.nextNumber()))
	var c *checkpoint
	err = s.stop.attempt("checkpoint", func() (err error) {
		c, err = s.freeze(g, dir)
		return err
	})
	if err != nil {
		// The live state is not touched by a checkpoint, nor by its failure.
		return nil, errors.Join(fmt.Errorf("pebblestore: checkpoint: %w", err), s.fs.RemoveAll(dir))
	}
	return c, nil
}

func (s *Store) freeze(g *generation, dir string) (*checkpoint, error) {
	if err := g.db.Checkpoint(dir); err != nil {
		return nil, err
	}
	files, err := listFiles(s.fs, dir)
	if err != nil {
		return nil, err
	}
	a, err := s.newAside(dir, &s.stop)
	if err != nil {
		return nil, err
	}
	return &checkpoint{aside: a, files: files}, nil
}

// Reader implements store.Checkpoint.
func (c *checkpoint) Reader() store.Reader { return c.aside }

// Size implements store.Checkpoint.
func (c *checkpoint) Size() int64 { return streamSize(c.files) }

// WriteTo implements store.Checkpoint. Every block of every table is checked before
// it is sent; damage, or a file that can't be read, is a failure of the store.
func (c *checkpoint) WriteTo(w io.Writer) (int64, error) {
	c.mu.Lock()
	closed := c.mu.closed
	c.mu.Unlock()
	if closed {
		return 0, store.ErrClosed
	}
	if err := c.stop.err(); err != nil {
		return 0, err
	}
	out := &streamWriter{w: w, fs: c.s.fs, buf: make([]byte, copyBufferSize), verify: c.verifyTable}
	err := out.stream(c.dir, c.files)
	if err != nil && !out.refused {
		// Nobody may have read the file for long, and the receiver can't tell whose
		// fault it is: it would ask for the same bytes again, for ever.
		err = c.s.stop.fail(fmt.Errorf("checkpoint: %w", err))
	}
	if err != nil {
		return out.n, fmt.Errorf("pebblestore: write checkpoint: %w", err)
	}
	return out.n, nil
}

// Close implements store.Checkpoint. It waits for the iterators of Reader; a
// second Close does nothing.
func (c *checkpoint) Close() error { return c.release() }
