package shardkv_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

func random16() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}

// A client is the least that a client must do: follow redirects and leader
// hints, retry what may be retried, as the same session and sequence, and date a new
// session by the cluster's clock where that is ahead of its own.
type client struct {
	c       *cluster
	shards  int
	session *kvpb.Session
	seq     uint64
	clock   uint64 // the newest that a server told
	where   map[shardcfg.ShardID]string
	pauses  time.Duration // the longest time that one operation took
	// fixed: a session that has expired is not followed by another.
	fixed bool
}

func (c *cluster) client(shards int) *client {
	return &client{c: c, shards: shards, where: map[shardcfg.ShardID]string{},
		session: newSession(0, 1)}
}

func newSession(clock, ackedBelow uint64) *kvpb.Session {
	return &kvpb.Session{Id: random16(), BirthMs: max(uint64(time.Now().UnixMilli()), clock), AckedBelow: ackedBelow}
}

// do runs one operation until it is done, or refused for good.
func (k *client) do(t *testing.T, op *kvpb.Operation) *kvpb.Outcome {
	t.Helper()
	if op.GetGet() == nil {
		k.seq++
		op.Sequence = k.seq
		k.session.AckedBelow = k.seq
	}
	shard := shardcfg.ShardOf(op.Key, k.shards)
	request := &kvpb.ExecuteRequest{Session: k.session, Operations: []*kvpb.Operation{op}}
	begun := time.Now()
	var last string
	unresolved := false // an attempt may have been executed
	for i := 0; time.Since(begun) < 15*time.Second; i++ {
		address := k.where[shard]
		if address == "" {
			var all []string
			for gid := range k.c.groups {
				all = append(all, k.c.addresses(gid)...)
			}
			address = all[i%len(all)]
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		r, err := kvpb.NewKVClient(k.c.conn(address)).Execute(ctx, request)
		cancel()
		if err != nil {
			last, unresolved = err.Error(), true
			delete(k.where, shard)
			time.Sleep(5 * time.Millisecond) // poll
			continue
		}
		k.clock = max(k.clock, r.GetClockMs())
		o := r.GetOutcomes()[0]
		last = fmt.Sprint(o)
		unresolved = unresolved || o.GetCode() == kvpb.Code_OUTCOME_UNKNOWN
		if o.GetCode() == kvpb.Code_SESSION_EXPIRED && !unresolved && !k.fixed {
			k.session = newSession(k.clock, k.seq)
			request.Session = k.session
			continue
		}
		switch o.GetCode() {
		case kvpb.Code_WRONG_GROUP:
			delete(k.where, shard)
			if to := o.GetRedirect().GetReplicas(); len(to) > 0 {
				k.where[shard] = to[i%len(to)]
			} else {
				time.Sleep(5 * time.Millisecond) // poll
			}
		case kvpb.Code_NOT_LEADER:
			k.where[shard] = r.GetLeader()
		case kvpb.Code_BUSY, kvpb.Code_UNAVAILABLE, kvpb.Code_OUTCOME_UNKNOWN:
			delete(k.where, shard)
			time.Sleep(5 * time.Millisecond) // poll
		default:
			k.where[shard] = address
			k.pauses = max(k.pauses, time.Since(begun))
			return o
		}
	}
	t.Errorf("%v is not done after %v: %s", op, time.Since(begun), last)
	return &kvpb.Outcome{Code: kvpb.Code_UNAVAILABLE}
}

func get(key string) *kvpb.Operation {
	return &kvpb.Operation{Key: []byte(key), Kind: &kvpb.Operation_Get{Get: &kvpb.Get{}}}
}

func put(key, value string) *kvpb.Operation {
	return &kvpb.Operation{Key: []byte(key), Kind: &kvpb.Operation_Put{Put: &kvpb.Put{Value: []byte(value)}}}
}

func putIf(key, value string, version uint64) *kvpb.Operation {
	return &kvpb.Operation{Key: []byte(key), Kind: &kvpb.Operation_Put{Put: &kvpb.Put{Value: []byte(value),
		Condition: &kvpb.Condition{Version: version}}}}
}

func appendTo(key, value string) *kvpb.Operation {
	return &kvpb.Operation{Key: []byte(key), Kind: &kvpb.Operation_Append{Append: &kvpb.Append{Value: []byte(value)}}}
}

func remove(key string) *kvpb.Operation {
	return &kvpb.Operation{Key: []byte(key), Kind: &kvpb.Operation_Delete{Delete: &kvpb.Delete{}}}
}

// appenders append numbered tokens to keys until they are stopped, and then
// check that each key holds exactly the tokens that were acknowledged.
type appenders struct {
	c      *cluster
	shards int
	stop   chan struct{}
	wg     sync.WaitGroup
	mu     sync.Mutex
	keys   map[string]string
	// unknown are tokens whose sessions ended before it was told whether they were
	// appended.
	unknown map[string]bool
	worst   time.Duration
}

func startAppenders(t *testing.T, c *cluster, shards, clients, keysEach int) *appenders {
	a := &appenders{c: c, shards: shards, stop: make(chan struct{}), keys: map[string]string{}, unknown: map[string]bool{}}
	for n := range clients {
		a.wg.Go(func() {
			k := c.client(shards)
			for i := 0; ; i++ {
				select {
				case <-a.stop:
					a.mu.Lock()
					a.worst = max(a.worst, k.pauses)
					a.mu.Unlock()
					return
				default:
				}
				key := fmt.Sprintf("append-%d-%d", n, i%keysEach)
				token := fmt.Sprintf("%d.%d;", n, i)
				switch o := k.do(t, appendTo(key, token)); o.GetCode() {
				case kvpb.Code_OK:
				case kvpb.Code_SESSION_EXPIRED:
					a.mu.Lock()
					a.unknown[token] = true
					a.mu.Unlock()
					k.session = newSession(k.clock, k.seq)
					continue
				default:
					t.Errorf("append to %s: %v", key, o)
					return
				}
				a.mu.Lock()
				a.keys[key] += token
				a.mu.Unlock()
			}
		})
	}
	return a
}

// count returns the number of acknowledged tokens.
func (a *appenders) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, v := range a.keys {
		n += strings.Count(v, ";")
	}
	return n
}

func (a *appenders) check(t *testing.T) {
	t.Helper()
	close(a.stop)
	a.wg.Wait()
	k := a.c.client(a.shards)
	for key, want := range a.keys {
		o := k.do(t, get(key))
		var known strings.Builder
		for token := range strings.SplitAfterSeq(string(o.GetValue()), ";") {
			if a.unknown[token] {
				delete(a.unknown, token) // once at most
				continue
			}
			known.WriteString(token)
		}
		if known.String() != want {
			t.Errorf("%s holds %q, acknowledged were %q", key, o.GetValue(), want)
		}
	}
	t.Logf("%d appends acknowledged, the slowest took %v", a.count(), a.worst)
}
