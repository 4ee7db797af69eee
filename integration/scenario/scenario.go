// Package scenario holds the acceptance scenarios: whole clusters of processes
// on real disks, under load and faults. `go test` runs each of them reduced;
// `make accept` runs them in full and writes docs/acceptance.md.
//
// A scenario fails with an error. What it measured it observes by name, also
// when it fails, so that the table shows what was seen.
package scenario

import (
	"context"
	"fmt"
	"go/build"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/integration/history"
	"github.com/shoalkv/shoal/integration/workload"
)

// A Scenario is one acceptance scenario.
type Scenario struct {
	// Name is S1 to S10.
	Name string
	// Claim is what must hold, in one sentence.
	Claim string
	// Run returns an error if it does not hold.
	Run func(context.Context, *Env) error
}

// All are the scenarios in their order.
var All = []Scenario{
	{"S1", "grow and shrink: a tree imported during a join and exported after a leave is identical, appends are exact, moves minimal", growAndShrink},
	{"S2", "power cut of processes: all twelve killed in mid-handoff come back with every acknowledged write and finish unaided", powerCut},
	{"S3", "leaders die: source and destination leaders are killed in turn while shards move; the history is linearizable", leadersDie},
	{"S4", "no controllers: reads and writes go on, a restarted leader serves, a new clerk starts from seeds", noControllers},
	{"S5", "wrong address: a client with an old config, or at the wrong group, is redirected", wrongAddress},
	{"S6", "lost replies: every append takes effect exactly once though executed calls lose their replies", lostReplies},
	{"S7", "wiped disk: a replica under its old label on an empty disk stops with exit 5 and names the repair, which works", wipedDisk},
	{"S8", "bad input: typed errors, no panic, nothing harmed", badInput},
	{"S9", "a group is destroyed: clients of other shards do not notice; retired and repaired, its shards serve again, and take the data back", groupDestroyed},
	{"S10", "one disk of three is left of a group: salvaged and reformed it serves again, with every write that the replica had stored, and repeats none", oneDiskLeft},
}

// A Scale says how large a run is.
type Scale struct {
	Name string
	// Tree is the directory that S1 imports.
	Tree string
	// AppendKeys is the number of keys that S1's writer appends to.
	AppendKeys int
	// Kills is the number of leaders that S3 kills, one each KillEvery.
	Kills     int
	KillEvery time.Duration
	// Late is how much later than the others S2 starts one group.
	Late time.Duration
	// Clients and Keys are the workload's.
	Clients, Keys int
	// Load is how long S4 and S6 keep their workloads up.
	Load time.Duration
	// Pace is the pause of a client between two calls.
	Pace time.Duration
	// Shards is the shard count of the clusters; 0: the product's default.
	Shards int
	// Limit is the time that one scenario may take.
	Limit time.Duration
}

// Full is the scale of an acceptance run: Go's own source tree is the input.
func Full() Scale {
	return Scale{Name: "full", Tree: filepath.Join(build.Default.GOROOT, "src"), AppendKeys: 200,
		Kills: 60, KillEvery: time.Second, Late: 30 * time.Second, Clients: 16, Keys: 64,
		Load: time.Minute, Pace: 5 * time.Millisecond, Limit: 15 * time.Minute}
}

// Reduced is the scale of `go test ./...`.
func Reduced() Scale {
	return Scale{Name: "reduced", Tree: filepath.Join(build.Default.GOROOT, "src", "net"), AppendKeys: 40,
		Kills: 10, KillEvery: time.Second, Late: 3 * time.Second, Clients: 8, Keys: 16,
		Load: 6 * time.Second, Pace: 10 * time.Millisecond, Shards: 64, Limit: 4 * time.Minute}
}

// An Env is what one run of a scenario works with.
type Env struct {
	Scale Scale
	// Binary is the shoal executable, Dir an empty directory on a real disk.
	Binary, Dir string
	// Seed fixes the run's own choices: whom to kill, what to move.
	Seed uint64
	// Logf takes progress.
	Logf func(format string, args ...any)

	mu struct {
		sync.Mutex
		observed []Observation
	}
}

// An Observation is one row of the acceptance table.
type Observation struct{ Quantity, Observed string }

// Observe notes a quantity and what was seen.
func (e *Env) Observe(quantity, format string, args ...any) {
	o := Observation{quantity, fmt.Sprintf(format, args...)}
	e.mu.Lock()
	e.mu.observed = append(e.mu.observed, o)
	e.mu.Unlock()
	e.Logf("%s: %s", o.Quantity, o.Observed)
}

// Observed returns the observations so far.
func (e *Env) Observed() []Observation {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Observation(nil), e.mu.observed...)
}

// random is the run's own randomness.
func (e *Env) random() *rand.Rand { return rand.New(rand.NewPCG(e.Seed, 1)) }

// start starts a cluster of three controllers and three groups of three, and
// joins the first members groups.
func (e *Env) start(ctx context.Context, members int) (*cluster.Cluster, error) {
	c, err := cluster.Start(ctx, cluster.Options{Binary: e.Binary, Dir: e.Dir, Shards: e.Scale.Shards})
	if err != nil {
		return nil, err
	}
	for gid := uint64(1); gid <= uint64(members); gid++ {
		if err := e.join(ctx, c, gid); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// join joins a group and waits until its shards have arrived. A group that is
// still forming is refused; the operator tries again.
func (e *Env) join(ctx context.Context, c *cluster.Cluster, gid uint64) error {
	if err := c.Await(ctx, fmt.Sprintf("group %d can join", gid), func() error {
		return c.Shoal(ctx, "join", fmt.Sprint(gid), c.ReplicaAddrs(gid)).Err()
	}); err != nil {
		return err
	}
	return c.Shoal(ctx, "join", fmt.Sprint(gid), c.ReplicaAddrs(gid), "--wait", "--timeout", "2m").Err()
}

// clerks opens n clerks, each a session of its own.
func clerks(ctx context.Context, n int, config clerk.Config) ([]workload.Store, func(), error) {
	var stores []workload.Store
	var open []*clerk.Clerk
	closeAll := func() {
		for _, k := range open {
			k.Close()
		}
	}
	for range n {
		k, err := clerk.Open(ctx, config)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		stores, open = append(stores, k), append(open, k)
	}
	return stores, closeAll, nil
}

// config is how clients reach the cluster.
func config(c *cluster.Cluster) clerk.Config {
	return clerk.Config{Controllers: strings.Split(c.ControllerAddrs(), ",")}
}

// loaded is a workload on a cluster, with what is needed to judge it.
type loaded struct {
	env      *Env
	load     *workload.Load
	recorder *history.Recorder
	reader   *clerk.Clerk
	close    func()
}

// load starts the scale's clients on a cluster.
func (e *Env) load(ctx context.Context, via clerk.Config, prefix string) (*loaded, error) {
	stores, closeAll, err := clerks(ctx, e.Scale.Clients, via)
	if err != nil {
		return nil, err
	}
	l := &loaded{env: e, recorder: history.NewRecorder(), reader: stores[0].(*clerk.Clerk), close: closeAll}
	l.load, err = workload.Start(stores, workload.Options{Prefix: prefix, Clients: e.Scale.Clients,
		Keys: e.Scale.Keys, Pace: e.Scale.Pace, Seed: e.Seed, OpTimeout: 20 * time.Second}, l.recorder)
	if err != nil {
		closeAll()
		return nil, err
	}
	return l, nil
}

// judge stops the clients, reads everything, and checks the whole history.
func (l *loaded) judge(ctx context.Context) error {
	defer l.close()
	l.load.Stop()
	final, err := l.load.ReadAll(ctx, l.reader)
	if err != nil {
		return err
	}
	h := l.recorder.History()
	l.env.Observe("operations", "%d: %d done, %d not done, %d unknown", len(h),
		h.Count(history.Done), h.Count(history.NotDone), h.Count(history.Unknown))
	tokens := h.CheckTokens(final)
	l.env.Observe("append tokens", "%s", tokens)
	verdict := h.Linearizable(5 * time.Minute)
	l.env.Observe("porcupine", "%s", verdict)
	if verdict.Key != "" {
		picture := filepath.Join(os.TempDir(), "shoal-"+l.env.Scale.Name+"-history.html")
		if err := h.Visualize(verdict.Key, picture, time.Minute); err == nil {
			l.env.Logf("picture of key %q: %s", verdict.Key, picture)
		}
	}
	switch {
	case !tokens.OK():
		return fmt.Errorf("append tokens: %s", tokens)
	case !verdict.Linearizable:
		return fmt.Errorf("history is %s", verdict)
	case h.Count(history.Done) == 0:
		return fmt.Errorf("no operation succeeded")
	}
	return nil
}

// settled waits until every shard is at its owner.
func settled(ctx context.Context, k *clerk.Clerk) error {
	cfg, err := k.Admin().Latest(ctx)
	if err != nil {
		return err
	}
	return k.Admin().WaitSettled(ctx, cfg.Num, nil)
}

// refused reports an address on which nobody listens.
func refused(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		conn.Close()
	}
	return err != nil
}
