package scenario

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// oneDiskLeft is S10: the procedure of docs/operations.md, "One disk is left".
func oneDiskLeft(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 2)
	if err != nil {
		return err
	}
	defer c.Close()
	w, err := startPuts(ctx, c, e.Scale.Clients)
	if err != nil {
		return err
	}
	defer w.stop()
	var before cluster.Config
	if err := c.JSON(ctx, &before, "config"); err != nil {
		return err
	}
	survivor := c.Groups[2][e.random().IntN(len(c.Groups[2]))]
	stored, err := stampedAppend(ctx, c, 2, "stored")
	if err != nil {
		return err
	}
	settled, err := w.storedBy(ctx, c, survivor)
	if err != nil {
		return err
	}
	// What the others acknowledge from here on is lost with them.
	if err := survivor.Pause(); err != nil {
		return err
	}
	lost, err := stampedAppend(ctx, c, 2, "lost")
	if err != nil {
		return err
	}
	if err := w.moreOf(ctx, c, 2); err != nil {
		return err
	}
	for _, p := range c.Groups[2] {
		if err := p.Kill(); err != nil {
			return err
		}
		if p != survivor {
			if err := os.RemoveAll(p.Dir); err != nil {
				return err
			}
		}
	}
	w.stop()
	if err := e.refusals(ctx, c, survivor); err != nil {
		return err
	}
	kept := survivor.Dir + "-kept"
	if err := os.Rename(survivor.Dir, kept); err != nil {
		return err
	}
	if err := e.salvage(ctx, c, kept, survivor, settled, w.acked); err != nil {
		return err
	}
	if err := e.reform(ctx, c, survivor); err != nil {
		return err
	}
	if err := e.compare(ctx, c, before, settled, w.acked); err != nil {
		return err
	}
	if err := errors.Join(stored.again(ctx, survivor), lost.again(ctx, survivor)); err != nil {
		return err
	}
	return e.equalReplicas(ctx, c)
}

// refusals: what is left of a group can't be taken away from under it, and the
// refusals say what to do.
func (e *Env) refusals(ctx context.Context, c *cluster.Cluster, survivor *cluster.Process) error {
	if err := survivor.Start(); err != nil {
		return err
	}
	if err := c.Await(ctx, "retire is refused with advice", func() error {
		if r := c.Shoal(ctx, "retire", "2", "--destroyed"); r.Exit != 5 || !strings.Contains(r.Stderr, "shoal reform") {
			return fmt.Errorf("exit %d: %s", r.Exit, r.Stderr)
		}
		return nil
	}); err != nil {
		return err
	}
	if r := c.Shoal(ctx, "salvage", survivor.Dir, filepath.Join(e.Dir, "inuse.jsonl")); r.Exit != 5 || !strings.Contains(r.Stderr, "in use by process") {
		return fmt.Errorf("salvage of a directory in use: exit %d: %s", r.Exit, r.Stderr)
	}
	if r := c.Shoal(ctx, "health"); r.Exit != 3 || !strings.Contains(r.Stdout, "UNAVAILABLE: group 2 has no leader") {
		return fmt.Errorf("health: exit %d: %s", r.Exit, r.Stdout)
	}
	return survivor.Kill()
}

// salvage exports the directory that is left, and reforms it into the survivor's
// place; neither changes it.
func (e *Env) salvage(ctx context.Context, c *cluster.Cluster, kept string, survivor *cluster.Process, settled, acked map[string]string) error {
	before, err := fingerprint(kept)
	if err != nil {
		return err
	}
	out := filepath.Join(e.Dir, "rescued.jsonl")
	var report struct {
		StateIndex   uint64 `json:"state_index"`
		AppliedIndex uint64 `json:"applied_index"`
		TailEntries  int    `json:"tail_entries"`
		Keys         uint64
		Served       []struct{ First, Last int }
		Lacking      []struct{ First, Last int }
	}
	if err := c.JSON(ctx, &report, "salvage", kept, out); err != nil {
		return err
	}
	e.Observe("salvaged", "%d keys, state at entry %d, %d entries of the log's tail applied, up to %d", report.Keys, report.StateIndex, report.TailEntries, report.AppliedIndex)
	found, err := readLines(out)
	if err != nil {
		return err
	}
	var served []int
	for _, r := range report.Served {
		for s := r.First; s <= r.Last; s++ {
			served = append(served, s)
		}
	}
	lost := 0
	for key, value := range acked {
		if !slices.Contains(served, int(shardcfg.ShardOf([]byte(key), e.shards()))) {
			continue
		}
		_, must := settled[key]
		switch got, ok := found[key]; {
		case ok && got != value:
			return fmt.Errorf("key %q was salvaged as %q, %q was put", key, got, value)
		case !ok && must:
			return fmt.Errorf("key %q was stored by the replica, and was not salvaged", key)
		case !ok:
			lost++
		}
	}
	e.Observe("acknowledged writes that the export lacks", "%d", lost)
	if lost == 0 {
		return errors.New("the export lacks nothing: the scenario did not lose what it wanted to lose")
	}
	if err := c.Shoal(ctx, "reform", kept, survivor.Dir, "--address", survivor.Addr).Err(); err != nil {
		return fmt.Errorf("reform: %w", err)
	}
	after, err := fingerprint(kept)
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("the directory was changed:\n%s\n%s", before, after)
	}
	return nil
}

// reform brings the group back, as the manual says, and gives it three replicas
// again.
func (e *Env) reform(ctx context.Context, c *cluster.Cluster, survivor *cluster.Process) error {
	if err := c.Shoal(ctx, "retire", "2", "--destroyed").Err(); err != nil {
		return fmt.Errorf("retire: %w", err)
	}
	first := c.Replace(survivor)
	if err := first.Start(); err != nil {
		return err
	}
	if err := c.Await(ctx, "the reformed group can join", func() error { return c.Shoal(ctx, "join", "2", first.Addr).Err() }); err != nil {
		return err
	}
	var fates []struct{ Fate string }
	if err := c.Await(ctx, "all groups answer", func() error { return c.JSON(ctx, &fates, "repair", "--plan") }); err != nil {
		return err
	}
	thawed := 0
	for _, f := range fates {
		if f.Fate == "thawed" {
			thawed++
		}
	}
	e.Observe("repaired", "%d shards, all from the salvage: %v", thawed, thawed == len(fates))
	if thawed != len(fates) || thawed == 0 {
		return fmt.Errorf("fates: %+v", fates)
	}
	if err := c.Shoal(ctx, "repair", "--accept-data-loss", "--copies-only", "--wait", "--wait-timeout", "1m").Err(); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	for _, p := range c.Groups[2] {
		if p.Addr == first.Addr {
			continue
		}
		fresh := c.Replace(p)
		if err := fresh.Start(); err != nil {
			return err
		}
		if err := c.Await(ctx, fresh.ID+" is a voter", func() error {
			return c.Shoal(ctx, "replicas", "2", "add", fresh.Addr, "--wait", "--wait-timeout", "1m").Err()
		}); err != nil {
			return err
		}
	}
	return c.Await(ctx, "the cluster is healthy", func() error { return c.Shoal(ctx, "health").Err() })
}

// compare reads everything that was acknowledged: what the survivor had stored is
// there, and what other groups had; versions go on above all that were given out.
func (e *Env) compare(ctx context.Context, c *cluster.Cluster, before cluster.Config, settled, acked map[string]string) error {
	k, err := clerk.Open(ctx, config(c))
	if err != nil {
		return err
	}
	defer k.Close()
	lost := 0
	for key, value := range acked {
		got, err := k.Get(ctx, []byte(key))
		_, must := settled[key]
		must = must || before.Shards[shardcfg.ShardOf([]byte(key), len(before.Shards))] != 2
		switch {
		case errors.Is(err, clerk.ErrNotFound) && !must:
			lost++
		case err != nil:
			return fmt.Errorf("get %q: %w", key, err)
		case string(got.Bytes) != value:
			return fmt.Errorf("key %q is %q, %q was put", key, got.Bytes, value)
		default:
			version, err := k.Put(ctx, []byte(key), got.Bytes)
			if err != nil || version <= got.Version {
				return fmt.Errorf("put %q: version %d after %d: %v", key, version, got.Version, err)
			}
		}
	}
	e.Observe("acknowledged writes lost", "%d of %d, none of the %d that the replica had stored", lost, len(acked), len(settled))
	return nil
}

func (e *Env) shards() int {
	if e.Scale.Shards == 0 {
		return shardcfg.ShardCountDefault
	}
	return e.Scale.Shards
}

// puts are clients that put new keys, each once, and remember what was
// acknowledged. acked may be read once stop has returned.
type puts struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	close  func()
	mu     sync.Mutex
	acked  map[string]string
	once   sync.Once
}

func startPuts(ctx context.Context, c *cluster.Cluster, clients int) (*puts, error) {
	stores, closeAll, err := clerks(ctx, clients, config(c))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &puts{cancel: cancel, close: closeAll, acked: map[string]string{}}
	for n, s := range stores {
		w.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key, value := fmt.Sprintf("put-%d-%d", n, i), fmt.Sprintf("value %d of client %d", i, n)
				if _, err := s.(*clerk.Clerk).Put(ctx, []byte(key), []byte(value)); err == nil {
					w.mu.Lock()
					w.acked[key] = value
					w.mu.Unlock()
				}
			}
		})
	}
	return w, nil
}

func (w *puts) stop() {
	w.once.Do(func() {
		w.cancel()
		w.wg.Wait()
		w.close()
	})
}

// moreOf waits until puts to a group's shards are acknowledged that were not before.
func (w *puts) moreOf(ctx context.Context, c *cluster.Cluster, gid uint64) error {
	var cfg cluster.Config
	if err := c.JSON(ctx, &cfg, "config"); err != nil {
		return err
	}
	count := func() (n int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for key := range w.acked {
			if cfg.Shards[shardcfg.ShardOf([]byte(key), len(cfg.Shards))] == gid {
				n++
			}
		}
		return n
	}
	before := count()
	return c.Await(ctx, "100 puts more are acknowledged", func() error {
		if n := count() - before; n < 100 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}

// storedBy waits until a replica has applied everything that was acknowledged at
// one moment, and returns that.
func (w *puts) storedBy(ctx context.Context, c *cluster.Cluster, p *cluster.Process) (map[string]string, error) {
	settled := map[string]string{}
	if err := c.Await(ctx, "1,000 puts are acknowledged", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.acked) < 1000 {
			return fmt.Errorf("%d are", len(w.acked))
		}
		for key, value := range w.acked {
			settled[key] = value
		}
		return nil
	}); err != nil {
		return nil, err
	}
	at := uint64(0)
	return settled, c.Await(ctx, p.ID+" has applied them", func() error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		applied := uint64(0)
		for _, g := range s.Groups {
			for _, m := range g.Replicas {
				if g.GID == p.Group && m.Address == p.Addr {
					applied = m.AppliedIndex
				}
				if g.GID == p.Group && m.Role == "leader" && at == 0 {
					at = m.AppliedIndex
				}
			}
		}
		if at == 0 || applied < at {
			return fmt.Errorf("%s has applied %d, the leader had %d", p.ID, applied, at)
		}
		return nil
	})
}

// A stamped is a write with its session and sequence number, which was executed.
type stamped struct{ request *kvpb.ExecuteRequest }

// stampedAppend appends to a key of a group, straight to its leader.
func stampedAppend(ctx context.Context, c *cluster.Cluster, gid uint64, name string) (*stamped, error) {
	var cfg cluster.Config
	if err := c.JSON(ctx, &cfg, "config"); err != nil {
		return nil, err
	}
	key := ""
	for i := 0; key == ""; i++ {
		if name := fmt.Sprintf("%s-%d", name, i); cfg.Shards[shardcfg.ShardOf([]byte(name), len(cfg.Shards))] == gid {
			key = name
		}
	}
	w := &stamped{&kvpb.ExecuteRequest{
		Session: &kvpb.Session{Id: bytes.Repeat([]byte(name[:1]), 16), BirthMs: uint64(time.Now().UnixMilli()), AckedBelow: 1},
		Operations: []*kvpb.Operation{{Key: []byte(key), Sequence: 1,
			Kind: &kvpb.Operation_Append{Append: &kvpb.Append{Value: []byte("once")}}}},
	}}
	return w, c.Await(ctx, "a stamped append is executed", func() error {
		p := c.Leader(ctx, gid)
		if p == nil {
			return errors.New("nobody leads")
		}
		return w.send(ctx, p, kvpb.Code_OK)
	})
}

func (w *stamped) send(ctx context.Context, p *cluster.Process, want kvpb.Code) error {
	conn, err := dial(p.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := kvpb.NewKVClient(conn).Execute(ctx, w.request)
	if err != nil {
		return err
	}
	if got := r.GetOutcomes()[0]; got.GetCode() != want {
		return fmt.Errorf("%v; want %v", got, want)
	}
	return nil
}

// again repeats the write after the disaster: it must not be executed once more.
func (w *stamped) again(ctx context.Context, p *cluster.Process) error {
	if err := w.send(ctx, p, kvpb.Code_SESSION_EXPIRED); err != nil {
		return fmt.Errorf("a retry from before the disaster: %w", err)
	}
	return nil
}

// readLines reads an export of JSON lines.
func readLines(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range bytes.Lines(b) {
		var r struct{ Key, Value string }
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, err
		}
		found[r.Key] = r.Value
	}
	return found, nil
}

// fingerprint describes all files of a directory: names, sizes, times, contents.
func fingerprint(dir string) (string, error) {
	var b strings.Builder
	err := eachFile(dir, func(rel string) error {
		path := filepath.Join(dir, rel)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %d %v %x\n", rel, info.Size(), info.ModTime(), sha256.Sum256(content))
		return err
	})
	return b.String(), err
}
