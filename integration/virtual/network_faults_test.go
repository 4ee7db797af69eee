package virtual

import (
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// Claim: a seed draws the same plan every time, and another seed another.
func TestSeedFixesThePlan(t *testing.T) {
	for seed := range uint64(50) {
		p := newPlan(seed)
		if !reflect.DeepEqual(p, newPlan(seed)) {
			t.Fatalf("two plans of seed %d", seed)
		}
		if reflect.DeepEqual(p.faults, newPlan(seed+1).faults) {
			t.Fatalf("seeds %d and %d draw the same faults", seed, seed+1)
		}
	}
}

// pipe connects two hosts.
func pipe(t *testing.T, w *world) (here, there net.Conn, a, b *streams) {
	t.Helper()
	a, b = newStreams(w, "a"), newStreams(w, "b")
	accepted := make(chan net.Conn)
	go func() {
		c, _ := b.Accept()
		accepted <- c
	}()
	here, err := a.connect(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return here, <-accepted, a, b
}

// Claim: the streams do what they are used for: a cut link loses nothing and
// delivers in order when it is whole; deadlines end reads and writes; a reset is
// seen at both ends; a host without power says nothing.
func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(newPlan(1), new(tally))
		here, there, _, b := pipe(t, w)
		read := func(n int, want string) {
			t.Helper()
			got := make([]byte, n)
			if _, err := io.ReadFull(there, got); err != nil || string(got) != want {
				t.Fatalf("read %q, %v, want %q", got, err, want)
			}
		}
		links := []linkKey{{"a", "b"}}
		here.Write([]byte("one"))
		read(3, "one")

		w.network.change(links, func(l *link) { l.cut++ })
		here.Write([]byte("two"))
		here.Write([]byte("three"))
		there.SetReadDeadline(time.Now().Add(time.Second))
		began := time.Now()
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Fatalf("read over a cut link: %v after %v", err, time.Since(began))
		}
		here.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := here.Write(make([]byte, 2*halfBytesMax)); !errors.Is(err, os.ErrDeadlineExceeded) || n != halfBytesMax-8 {
			t.Fatalf("a write into a full buffer: %d bytes, %v", n, err)
		}
		there.SetReadDeadline(time.Time{})
		w.network.change(links, func(l *link) { l.cut-- })
		read(8, "twothree")

		b.powerOff()
		here.SetDeadline(time.Now().Add(time.Second))
		if _, err := here.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read from a host without power: %v", err)
		}

		here, there, a, _ := pipe(t, w)
		a.reset()
		if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("read of a reset connection: %v", err)
		}
		if _, err := here.Write([]byte("x")); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("write to a reset connection: %v", err)
		}

		here, there, _, _ = pipe(t, w)
		here.Write([]byte("last"))
		here.Close()
		read(4, "last")
		if _, err := there.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("read behind the end: %v", err)
		}
	})
}
