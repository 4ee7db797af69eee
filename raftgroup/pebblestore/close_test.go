package pebblestore

import (
	"bytes"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// A closed store leaves no goroutine behind, whatever was opened and adopted. The
// stores that other tests make fail do: their databases, which can't be closed, try
// again and again, in new goroutines, to read what is damaged. So this test comes
// first, in the first file of the package with one.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := openTest(t, Options{})
	commit(t, s, func(b store.Batch) error { return b.Set([]byte("k"), []byte("v")) })
	c, err := s.Checkpoint()
	must(t, err)
	if _, _, err := c.Reader().Get([]byte("k")); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	_, err = c.WriteTo(&stream)
	must(t, err)
	in, err := s.Receive(&stream)
	must(t, err)
	must(t, in.Adopt())
	must(t, s.Close())
	goleak.VerifyNone(t, before)
}
