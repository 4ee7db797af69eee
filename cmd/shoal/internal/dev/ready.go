package dev

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

const (
	readyTimeout  = time.Minute
	readyInterval = 50 * time.Millisecond
	attemptMax    = 5 * time.Second
)

// becomeReady joins the groups, the first time, and returns when every shard
// is served. A member that ends meanwhile ends it too.
func (c *cluster) becomeReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("the cluster is not ready after %v; its logs are in %s", readyTimeout, c.dir+"/logs"))
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case r := <-c.ended:
			fail(fmt.Errorf("replica %s ended: %s\n%s", r.spec.ID, reason(r), tail(r.spec.LogFile, 2000)))
		case <-ctx.Done():
		}
	}()
	err := c.joinAndServe(ctx)
	cause := context.Cause(ctx)
	fail(nil)
	<-watched
	if err != nil && cause != nil {
		return cause
	}
	return err
}

func (c *cluster) joinAndServe(ctx context.Context) error {
	client, err := retry(ctx, func(ctx context.Context) (*clerk.Clerk, error) {
		return clerk.Open(ctx, clerk.Config{Controllers: addresses(c.mu.layout.Controllers)})
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if !c.mu.layout.Joined {
		if err := c.join(ctx, client); err != nil {
			return err
		}
	}
	_, err = retry(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, served(ctx, client.Admin())
	})
	return err
}

// join makes the groups members that are no spares, once they are formed, and
// waits until every shard has arrived.
func (c *cluster) join(ctx context.Context, client *clerk.Clerk) error {
	admin := client.Admin()
	var groups []clerk.JoinGroup
	for _, g := range c.mu.layout.Groups {
		if !g.Spare {
			groups = append(groups, clerk.JoinGroup{GID: g.GID, Replicas: addresses(g.Replicas), Weight: 1})
		}
	}
	if _, err := retry(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, formed(ctx, client, c.mu.layout.Groups)
	}); err != nil {
		return err
	}
	made, err := retry(ctx, func(ctx context.Context) (clerk.Change, error) { return admin.Join(ctx, groups) })
	if err != nil {
		return err
	}
	if err := admin.WaitSettled(ctx, made.Num, nil); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.layout.Joined = true
	return c.mu.layout.save(c.dir)
}

// formed returns nil once all replicas belong to formed groups, the spare ones
// too. Then a join binds them, and the first config is the one that the cluster
// begins with.
func formed(ctx context.Context, client *clerk.Clerk, groups []*Group) error {
	for _, g := range groups {
		for _, address := range addresses(g.Replicas) {
			conn, err := client.Conn(address)
			if err != nil {
				return err
			}
			hello, err := raftpb.NewFormationClient(conn).Hello(ctx, &raftpb.HelloRequest{Group: uint64(g.GID)})
			if err != nil {
				return err
			}
			if !hello.GetFormed() {
				return fmt.Errorf("the replica at %s is not formed yet", address)
			}
		}
	}
	return nil
}

// served returns nil if controllers and every group have a leader and all shards
// have a holder that serves them, wherever they should be.
func served(ctx context.Context, admin *clerk.Admin) error {
	s, err := admin.Status(ctx)
	if err != nil {
		return err
	}
	leads := func(r clerk.ReplicaStatus) bool { return r.Role == "leader" && r.Healthy }
	if !slices.ContainsFunc(s.Controllers, leads) {
		return errors.New("the controllers have no leader yet")
	}
	held := 0
	for _, g := range s.Groups {
		if g.Leader == "" {
			return fmt.Errorf("group %d has no leader yet", g.GID)
		}
		held += g.Shards
	}
	if held < s.Total {
		return fmt.Errorf("%d of %d shards are served yet", held, s.Total)
	}
	return nil
}

// retry does something until it succeeds or ctx ends; the last error is added
// to the context's.
func retry[T any](ctx context.Context, do func(context.Context) (T, error)) (T, error) {
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptMax)
		v, err := do(attempt)
		cancel()
		if err == nil {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// printMembers prints a line for each replica and group, and the directory.
func (c *cluster) printMembers() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.mu.layout
	var b strings.Builder
	for _, id := range l.ids() {
		fmt.Fprintln(&b, l.line(id))
	}
	for _, g := range l.Groups {
		fmt.Fprintf(&b, "group %d replicas=%s\n", g.GID, joinAddresses(g.Replicas))
	}
	for _, id := range l.ids() {
		if r := l.find(id); r.HTTP != "" {
			fmt.Fprintf(&b, "http %s http://%s/metrics\n", id, r.HTTP)
		}
	}
	fmt.Fprintf(&b, "data %s", c.dir)
	if c.temporary {
		fmt.Fprint(&b, " (deleted on exit; keep it with --data)")
	}
	_, err := fmt.Fprintln(c.o.Stdout, b.String())
	return err
}

// printReady prints commands to paste, and last that the cluster is ready.
func (c *cluster) printReady() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.mu.layout
	var b strings.Builder
	fmt.Fprintln(&b, "\nTry, in another terminal:")
	for _, words := range [][]string{
		{"put", "hello", "world"},
		{"get", "hello"},
		{"status"},
	} {
		fmt.Fprintln(&b, "  "+c.command(words...))
	}
	for _, g := range l.Groups {
		if g.Spare {
			fmt.Fprintln(&b, "  "+c.command("join", fmt.Sprint(g.GID), joinAddresses(g.Replicas), "--wait"))
			fmt.Fprintln(&b, "  "+c.command("leave", fmt.Sprint(l.Groups[0].GID), "--wait"))
			break
		}
	}
	if r := l.Groups[0].Replicas[0]; r.PID != 0 {
		fmt.Fprintf(&b, "  kill -9 %d\n", r.PID)
		fmt.Fprintln(&b, "  "+c.command("dev", "restart", r.ID))
	}
	fmt.Fprintf(&b, "\nready controllers=%s", joinAddresses(l.Controllers))
	_, err := fmt.Fprintln(c.o.Stdout, b.String())
	return err
}

// command writes a command line for this cluster that works as it stands.
func (c *cluster) command(words ...string) string {
	line := append([]string{}, c.o.Invocation...)
	if words[0] == "dev" {
		line = append(append(line, words...), "--data", c.dir)
	} else {
		line = append(line, words...)
		if list := joinAddresses(c.mu.layout.Controllers); c.mu.layout.Controllers[0].Address != c.o.ControllersDefault {
			line = append(line, "--controllers", list)
		}
	}
	for i, word := range line {
		line[i] = quote(word)
	}
	return strings.Join(line, " ")
}
