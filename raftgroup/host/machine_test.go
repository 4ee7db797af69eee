package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
	"github.com/shoalkv/shoal/raftgroup/store"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// logMachine appends texts to the value of one key. The body of a command is an id
// and a text: one that is repeated, because its outcome was unknown, is applied once.
// A command of hangKind makes it hang.
type logMachine struct {
	hang chan struct{} // ends the hanging when it is closed
}

const (
	logKind  = entry.KindMachineMin
	hangKind = entry.KindMachineMin + 1
)

var logKey = []byte("log")

const logIDBytes = 16

// appendCommand makes a command that appends a text.
func appendCommand(text string) entry.Command {
	var id [logIDBytes]byte
	rand.Read(id[:]) // never fails
	return entry.Command{Kind: logKind, Body: append(id[:], text...)}
}

func (m logMachine) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	results := make([]any, len(e.Commands))
	for i, c := range e.Commands {
		if c.Kind == hangKind {
			<-m.hang
		}
		if c.Kind != logKind {
			continue
		}
		value, _, err := b.Get(logKey)
		if err != nil {
			return nil, err
		}
		seen := append([]byte("seen/"), c.Body[:logIDBytes]...)
		if _, again, err := b.Get(seen); err != nil {
			return nil, err
		} else if !again {
			value = append(value, c.Body[logIDBytes:]...)
		}
		if err := errors.Join(b.Set(logKey, value), b.Set(seen, nil)); err != nil {
			return nil, err
		}
		results[i] = len(value)
	}
	return results, nil
}

func (logMachine) Reset(store.Reader) error { return nil }
func (logMachine) Applied(uint64)           {}

// A syncBuffer collects log lines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) contains(text string) bool { return strings.Contains(b.String(), text) }

// A testHost is a host with the replica that it was started for.
type testHost struct {
	*Host
	t       *testing.T
	label   string
	timeout time.Duration // Raft's
	logs    *syncBuffer
	done    chan struct{} // closed when Replica returned
	hang    chan struct{} // see logMachine
	replica *raftgroup.Replica
	id      formation.Identity
	err     error
}

// newTestHost opens a host on a data directory, at an address that the system
// chooses unless listen says one.
func newTestHost(t *testing.T, label, dir, listen string, tune func(*Options)) *testHost {
	t.Helper()
	logs := &syncBuffer{}
	o := Options{
		Listen: listen, DataDir: dir, Version: "test",
		Logger: hclog.New(&hclog.LoggerOptions{Output: logs, Level: hclog.Debug}),
		Store:  pebblestore.Options{CacheBytes: 1 << 20, MemTableBytes: 256 << 10},
	}
	if tune != nil {
		tune(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	th := &testHost{Host: h, t: t, label: label, timeout: 150 * time.Millisecond, logs: logs, done: make(chan struct{}), hang: make(chan struct{})}
	t.Cleanup(func() {
		th.close()
		if t.Failed() {
			lines := logs.String()
			t.Logf("log of %q, the end of it:\n%s", label, lines[max(0, len(lines)-4000):])
		}
	})
	h.Serve()
	return th
}

// run starts the replica in the background.
func (h *testHost) run(gid shardcfg.GroupID, peers map[string]string) {
	go func() {
		defer close(h.done)
		h.replica, h.id, h.err = h.Replica(context.Background(), ReplicaOptions{
			GroupID: gid, Label: h.label, Peers: peers, ShardCount: 64,
			Cluster: func(context.Context) (shardcfg.ClusterID, int, error) { return shardcfg.ClusterID{5}, 64, nil },
			Machine: func(formation.Identity) (raftgroup.StateMachine, error) { return logMachine{hang: h.hang}, nil },
			Timeout: h.timeout,
		})
	}()
}

// ready waits until Replica has returned a replica.
func (h *testHost) ready() *raftgroup.Replica {
	h.t.Helper()
	select {
	case <-h.done:
	case <-time.After(20 * time.Second):
		h.t.Fatalf("replica %q does not start", h.label)
	}
	if h.err != nil {
		h.t.Fatalf("replica %q: %v", h.label, h.err)
	}
	return h.replica
}

// close drains the host.
func (h *testHost) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		h.t.Errorf("close %q: %v", h.label, err)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond) // poll
	}
}

// dialRaw opens a plain connection to a host.
func dialRaw(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
