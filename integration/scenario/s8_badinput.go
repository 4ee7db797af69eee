package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/cluster"
	"github.com/shoalkv/shoal/shardctrler/ctrlpb"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// badInput is S8.
func badInput(ctx context.Context, e *Env) error {
	c, err := e.start(ctx, 2)
	if err != nil {
		return err
	}
	defer c.Close()
	k, err := clerk.Open(ctx, config(c))
	if err != nil {
		return err
	}
	defer k.Close()
	if err := ballast(ctx, k, 200, 100); err != nil {
		return err
	}
	pids := map[string]int{}
	for _, p := range c.All() {
		pids[p.ID] = p.PID()
	}
	for _, attack := range []func(context.Context, *cluster.Cluster, *clerk.Clerk) error{
		e.badCommands, e.badCalls, e.malformedCalls, e.garbage,
	} {
		if err := attack(ctx, c, k); err != nil {
			return err
		}
	}
	for _, p := range c.All() {
		if !p.Running() || p.PID() != pids[p.ID] || strings.Contains(p.Log(), "panic") {
			return fmt.Errorf("process %s did not survive:\n%s", p.ID, p.Log())
		}
	}
	e.Observe("processes", "all %d survived, none panicked", len(pids))
	if err := e.foreignDisk(ctx, c); err != nil {
		return err
	}
	if err := checkBallast(ctx, config(c), 200, 100); err != nil {
		return err
	}
	return e.equalReplicas(ctx, c)
}

// badCommands runs commands that must be refused, each with its exit code.
func (e *Env) badCommands(ctx context.Context, c *cluster.Cluster, _ *clerk.Clerk) error {
	large := filepath.Join(e.Dir, "large.jsonl")
	line := `{"key":"large","value":"` + strings.Repeat("x", shardcfg.ValueBytesMax+1) + "\"}\n" + `{"key":"small","value":"kept"}` + "\n"
	if err := os.WriteFile(large, []byte(line), 0o600); err != nil {
		return err
	}
	long := strings.Repeat("k", shardcfg.KeyBytesMax+1)
	tests := []struct {
		args []string
		exit int
	}{
		{[]string{"get", ""}, 2},
		{[]string{"put", "", "v"}, 2},
		{[]string{"put", long, "v"}, 2},
		{[]string{"get", long}, 2},
		{[]string{"import", large}, 1}, // lists what is too large, imports the rest
		{[]string{"get", "small"}, 0},
		{[]string{"get", "large"}, 4},
		{[]string{"leave", "99"}, 4},
		{[]string{"move", "0", "99"}, 4},
		{[]string{"move", "999999", "1"}, 2},
		{[]string{"join", "0", "127.0.0.1:1"}, 2},
		{[]string{"join", "9", "127.0.0.1:1"}, 5},
		{[]string{"join", "9", c.ReplicaAddrs(1)}, 5}, // replicas of another gid
		{[]string{"join", "3", "not an address"}, 2},
		{[]string{"leave", "1", "2"}, 5}, // the last groups hold data
		{[]string{"config", "999999"}, 4},
		{[]string{"put", "k", "v", "--if-version", "minus"}, 2},
		{[]string{"no-such-command"}, 2},
		{[]string{"get", "k", "--no-such-flag"}, 2},
	}
	for _, test := range tests {
		r := c.Shoal(ctx, test.args...)
		shown := strings.Join(test.args, " ")
		if len(shown) > 60 {
			shown = shown[:60] + "..."
		}
		if r.Exit != test.exit || test.exit != 0 && strings.TrimSpace(r.Stderr) == "" {
			return fmt.Errorf("shoal %s: exit %d, want %d with a message; stderr %q", shown, r.Exit, test.exit, r.Stderr)
		}
	}
	e.Observe("bad commands", "%d, each with its exit code and a message", len(tests))
	return nil
}

// badCalls sends well-formed messages with bad content to a group's leader.
func (e *Env) badCalls(ctx context.Context, c *cluster.Cluster, k *clerk.Clerk) error {
	leader := c.Leader(ctx, 1)
	if leader == nil {
		return errors.New("nobody leads group 1")
	}
	conn, err := dial(leader.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	kv := kvpb.NewKVClient(conn)
	get := func(key []byte) *kvpb.Operation {
		return &kvpb.Operation{Key: key, Kind: &kvpb.Operation_Get{Get: &kvpb.Get{}}}
	}
	put := func(n int, sequence uint64) *kvpb.Operation {
		return &kvpb.Operation{Key: []byte("k"), Sequence: sequence, Kind: &kvpb.Operation_Put{Put: &kvpb.Put{Value: make([]byte, n)}}}
	}
	session := &kvpb.Session{Id: make([]byte, 16), BirthMs: uint64(time.Now().UnixMilli())}
	session.Id[0] = 1
	tests := []struct {
		name    string
		request *kvpb.ExecuteRequest
		code    kvpb.Code
	}{
		{"empty key", &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{get(nil)}}, kvpb.Code_INVALID},
		{"long key", &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{get(make([]byte, shardcfg.KeyBytesMax+1))}}, kvpb.Code_INVALID},
		{"large value", &kvpb.ExecuteRequest{Session: session, Operations: []*kvpb.Operation{put(shardcfg.ValueBytesMax+1, 1)}}, kvpb.Code_INVALID},
		{"no kind", &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{{Key: []byte("k")}}}, kvpb.Code_INVALID},
		{"sequence without session", &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{put(1, 1)}}, kvpb.Code_INVALID},
		{"short session", &kvpb.ExecuteRequest{Session: &kvpb.Session{Id: []byte{1}}, Operations: []*kvpb.Operation{put(1, 1)}}, kvpb.Code_INVALID},
		{"wrong cluster", &kvpb.ExecuteRequest{Cluster: bytes.Repeat([]byte{9}, 16), Operations: []*kvpb.Operation{get([]byte("k"))}}, kvpb.Code_WRONG_CLUSTER},
	}
	for _, test := range tests {
		r, err := kv.Execute(ctx, test.request)
		if err != nil {
			return fmt.Errorf("%s: %w", test.name, err)
		}
		for _, o := range r.GetOutcomes() {
			if o.GetCode() != test.code || o.GetMessage() == "" {
				return fmt.Errorf("%s: %v, want %v with a message", test.name, o, test.code)
			}
		}
		if len(r.GetOutcomes()) != 1 {
			return fmt.Errorf("%s: %d outcomes", test.name, len(r.GetOutcomes()))
		}
	}
	if r, err := kv.Scan(ctx, &kvpb.ScanRequest{From: []*kvpb.ScanFrom{{Shard: 1 << 20}}}); err == nil && r.GetOutcome().GetCode() != kvpb.Code_INVALID {
		return fmt.Errorf("scan of shard %d: %v", 1<<20, r.GetOutcome())
	}
	wrong := config(c)
	wrong.Cluster = shardcfg.ClusterID{1, 2, 3}
	if other, err := clerk.Open(ctx, wrong); !errors.Is(err, clerk.ErrWrongCluster) {
		if err == nil {
			other.Close()
		}
		return fmt.Errorf("a clerk of another cluster: %v, want %v", err, clerk.ErrWrongCluster)
	}
	_, err = k.Put(ctx, nil, []byte("v"))
	if !errors.Is(err, clerk.ErrInvalid) || !errors.Is(err, clerk.ErrNotDone) {
		return fmt.Errorf("clerk put with an empty key: %v", err)
	}
	e.Observe("bad calls", "%d, each with its typed error", len(tests)+3)
	return nil
}

// malformedCalls sends bytes that are no message to every method it knows.
func (e *Env) malformedCalls(ctx context.Context, c *cluster.Cluster, _ *clerk.Clerk) error {
	random := rand.New(rand.NewPCG(e.Seed, 8))
	methods := map[*cluster.Process][]string{
		c.Groups[1][0]: {
			kvpb.KV_Execute_FullMethodName, kvpb.KV_Stream_FullMethodName, kvpb.KV_Scan_FullMethodName, kvpb.KV_Status_FullMethodName,
			kvpb.Handoff_Invite_FullMethodName, kvpb.Handoff_Fetch_FullMethodName, "/no.such.Service/Method",
			"/shoal.raft.v1.Formation/Hello", "/shoal.raft.v1.Formation/Found", "/shoal.raft.v1.Membership/Remove",
		},
		c.Controllers[0]: {
			ctrlpb.Controller_Query_FullMethodName, ctrlpb.Controller_Join_FullMethodName, ctrlpb.Controller_Leave_FullMethodName,
			ctrlpb.Controller_Move_FullMethodName, ctrlpb.Controller_Poll_FullMethodName, ctrlpb.Controller_Bind_FullMethodName,
			ctrlpb.Controller_Claim_FullMethodName, ctrlpb.Controller_Drained_FullMethodName,
		},
	}
	refused, accepted := 0, 0
	for p, names := range methods {
		conn, err := dial(p.Addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, method := range names {
			for range 20 {
				call, cancel := context.WithTimeout(ctx, 5*time.Second)
				err := callRaw(call, conn, method, randomBytes(random))
				cancel()
				if status.Code(err) == codes.OK {
					accepted++ // some random bytes are unknown fields of a valid message
				} else {
					refused++
				}
			}
		}
	}
	e.Observe("malformed calls", "%d refused, %d happened to be valid messages", refused, accepted)
	return nil
}

// garbage writes bytes of no protocol to the listeners.
func (e *Env) garbage(ctx context.Context, c *cluster.Cluster, k *clerk.Clerk) error {
	random := rand.New(rand.NewPCG(e.Seed, 9))
	const connections = 200
	for i := range connections {
		all := c.All()
		conn, err := net.DialTimeout("tcp", all[i%len(all)].Addr, 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if i%3 != 0 { // a third stays silent
			_, _ = conn.Write(randomBytes(random)) // the other side may hang up at any byte
		}
		if i%3 == 1 {
			conn.Close()
		}
	}
	e.Observe("connections with garbage or silence", "%d; a good client is served meanwhile", connections)
	_, err := k.Put(ctx, []byte("good"), []byte("client"))
	return err
}

// foreignDisk starts a replica on another one's data directory.
func (e *Env) foreignDisk(ctx context.Context, c *cluster.Cluster) error {
	a, b := c.Groups[1][0], c.Groups[2][0]
	for _, p := range []*cluster.Process{a, b} {
		if _, err := p.Stop(30 * time.Second); err != nil {
			return err
		}
	}
	if err := swap(a.Dir, b.Dir); err != nil {
		return err
	}
	for _, p := range []*cluster.Process{a, b} {
		if err := p.Start(); err != nil {
			return err
		}
		code, err := p.Wait(30 * time.Second)
		if err != nil || code != 5 {
			return fmt.Errorf("%s on another replica's data: exit %d, want 5: %w", p.ID, code, err)
		}
	}
	if err := swap(a.Dir, b.Dir); err != nil {
		return err
	}
	for _, p := range []*cluster.Process{a, b} {
		if err := p.Start(); err != nil {
			return err
		}
	}
	e.Observe("data directories exchanged", "both replicas exit 5; back in place, both serve")
	return c.Await(ctx, "all replicas are healthy again", func() error {
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, g := range s.Groups {
			for _, m := range g.Replicas {
				if !m.Healthy {
					return fmt.Errorf("%s is not healthy", m.ID)
				}
			}
		}
		return nil
	})
}

func swap(a, b string) error {
	aside := a + ".aside"
	return errors.Join(os.Rename(a, aside), os.Rename(b, a), os.Rename(aside, b))
}
