// Package clerk is the Go client of a Shoal cluster. It sends every operation
// straight to the group that holds the key's shard, follows shards as they
// move, and retries through failures so that a write takes effect at most once.
//
// Errors say what is known about an operation: ErrNotDone (no effect, never
// will have), ErrOutcomeUnknown (a write that may have been executed, or may
// yet be), or done (ErrNotFound, ErrVersionMismatch). Every call has a deadline:
// that of its context, else Config.Timeout.
//
// Imports: row 4 of the layers. It imports shardcfg, the generated services,
// gRPC and clerk/route, which makes all routing decisions and is a pure step
// machine; this package is the driver around it. It links neither
// hashicorp/raft nor Pebble.
//
// Goroutines: callers run their own operations, one step after the other. The
// Clerk owns, for each address that it sends to, one that packs and sends (and
// one that receives, while a stream is up), and at most one that refreshes the
// placement. Close ends and awaits them all.
package clerk

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Defaults of Config.
const (
	TimeoutDefault     = 10 * time.Second
	InFlightMaxDefault = 4096
)

// Config says how to reach a cluster. It is read by Open and not kept.
type Config struct {
	// Controllers are addresses (host:port) of shard controllers. Where none is
	// up, the Clerk starts from CacheFile and Seeds.
	Controllers []string
	// Seeds are addresses of replicas of any groups: the way in when no
	// controller answers.
	Seeds []string
	// Cluster is the cluster that is meant. Zero: whichever the first server to
	// answer belongs to; from then on, no other.
	Cluster shardcfg.ClusterID
	// CacheFile, if not empty, is a file in which the Clerk keeps the newest
	// configuration that it has seen, to start from. It is written by rename.
	CacheFile string
	// Timeout is the deadline of a call whose context has none. 0 is
	// TimeoutDefault.
	Timeout time.Duration
	// InFlightMax bounds the operations under way at each group; more wait, within
	// their deadlines. 0 is InFlightMaxDefault.
	InFlightMax int

	// Dialer opens connections; nil is TCP. Addresses come as configured.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// Credentials secure the connections; nil is plain text.
	Credentials credentials.TransportCredentials
	// Logger takes what the Clerk has to say; nil is silence.
	Logger *slog.Logger
	// Now is the wall clock, which dates sessions; nil is time.Now. A wrong one
	// harms no promise.
	Now func() time.Time

	// Session, for tests, is the session of all writes, with BirthMS; it is
	// never rotated. Its Sequence, if any, is the first that is used. Zero: the
	// Clerk draws and rotates its own.
	Session Identity
	// Pinned, for tests, is a configuration that is used in place of what the
	// controllers say, however old; the Clerk then goes by redirects.
	Pinned *shardcfg.Config
}

// A Clerk is a client of one cluster. It is safe for concurrent use, and meant
// to be shared: its operations are packed together. Slices that are passed in
// are copied; slices that are returned are the caller's.
type Clerk struct {
	config Config
	log    *slog.Logger
	pool   *pool
	ctl    *controllers

	// life ends with Close.
	life context.Context
	end  context.CancelCauseFunc
	wait sync.WaitGroup

	table     routeTable
	bulkheads bulkheads
	sessions  sessionBook
	refresh   refresher
}

// Open returns a Clerk. It waits until the cluster's placement is known: from
// the controllers (any of them will do, a majority is not needed), else from a
// replica among Seeds, else from CacheFile, which may be another cluster's.
//
// It fails, and leaves nothing behind, if none of them tells within the deadline
// of ctx, or else Config.Timeout; already after 3 s if nobody accepted a
// connection. With Pinned it asks nobody.
func Open(ctx context.Context, config Config) (*Clerk, error) {
	config, err := config.complete()
	if err != nil {
		return nil, &Error{Op: "open", Family: FamilyNotDone, Cause: ErrInvalid, Detail: err.Error()}
	}
	c := &Clerk{config: config, log: config.Logger}
	c.bulkheads.init(config.InFlightMax)
	c.life, c.end = context.WithCancelCause(context.Background())
	c.refresh.init(c)
	behind := c.refresh.want
	if config.Pinned != nil {
		behind = func() {}
	}
	c.table.init(config.Cluster, behind)
	c.sessions.init(config.Session)
	c.pool = newPool(c)
	c.ctl = newControllers(c)
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// complete returns the config with its defaults, owning its slices.
func (config Config) complete() (Config, error) {
	if len(config.Controllers)+len(config.Seeds) == 0 && config.Pinned == nil && config.CacheFile == "" {
		return config, errors.New("no controllers, no seeds and no cache file: no way to the cluster")
	}
	if config.Timeout < 0 || config.InFlightMax < 0 {
		return config, fmt.Errorf("timeout %v and in-flight bound %d must not be negative", config.Timeout, config.InFlightMax)
	}
	if !config.Session.IsZero() && config.Session.BirthMS == 0 {
		return config, errors.New("explicit session has no birth time")
	}
	config.Timeout = cmp.Or(config.Timeout, TimeoutDefault)
	config.InFlightMax = cmp.Or(config.InFlightMax, InFlightMaxDefault)
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Dialer == nil {
		config.Dialer = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	config.Controllers = slices.Clone(config.Controllers)
	config.Seeds = slices.Clone(config.Seeds)
	if config.Pinned != nil {
		config.Pinned = config.Pinned.Clone()
	}
	return config, nil
}

// Close ends all operations under way (a write that may have been executed
// returns ErrOutcomeUnknown), waits for the Clerk's goroutines and closes its
// connections. Closing twice is harmless.
func (c *Clerk) Close() error {
	c.end(ErrClosed)
	err := c.pool.close()
	c.wait.Wait()
	return err
}

// Conn returns the Clerk's connection to an address, for other services of the
// cluster; it belongs to the Clerk.
func (c *Clerk) Conn(address string) (grpc.ClientConnInterface, error) {
	return c.pool.conn(address)
}

// Cluster returns the cluster's id; zero while no server has told it.
func (c *Clerk) Cluster() shardcfg.ClusterID { return c.table.clusterID() }

// Placement returns the newest configuration that the Clerk has seen; nil: it
// knows only what replicas told. The config is shared and must not be changed.
func (c *Clerk) Placement() *shardcfg.Config { return c.table.config() }

// deadline gives ctx the default deadline if it has none.
func (c *Clerk) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.config.Timeout)
}

// whileOpen ends a context with the Clerk's life.
func (c *Clerk) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.life, func() { cancel(ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

// sleep waits; false: the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// now is the wall clock in milliseconds since 1970.
func (c *Clerk) now() uint64 { return uint64(max(0, c.config.Now().UnixMilli())) }

// draw128 draws a random name.
func draw128[T ~[16]byte]() T {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the program instead
	return T(id)
}
