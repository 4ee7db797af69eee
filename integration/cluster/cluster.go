// Package cluster runs a whole Shoal cluster as its users would: one process for
// each replica, real disks, real sockets on loopback. Tests and acceptance runs
// kill, pause and restart its processes.
//
// A Cluster is owned by one goroutine, which closes it; its processes and
// commands may be used by many.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options says what cluster to run.
type Options struct {
	// Binary is the shoal executable; see Build.
	Binary string
	// Dir holds data and logs; the caller deletes it.
	Dir string
	// Controllers, Groups and Replicas default to 3 each: Replicas per group.
	Controllers, Groups, Replicas int
	// Shards is the shard count; 0: the product's default.
	Shards int
	// Env are additional environment variables of every process, NAME=value.
	Env []string
}

// A Cluster is a set of processes.
type Cluster struct {
	options     Options
	Controllers []*Process
	Groups      map[uint64][]*Process
}

// A Result is what a command of the binary did.
type Result struct {
	Exit           int
	Stdout, Stderr string
}

// Build compiles the shoal binary into dir and returns its path. The module's
// root is found from the working directory upwards.
func Build(dir string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "shoal")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/shoal")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build shoal: %w\n%s", err, out)
	}
	return binary, nil
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}

// Start starts all processes and waits until the controllers answer. The groups
// run, but are not joined.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c, err := layOut(o)
	if err != nil {
		return nil, err
	}
	for _, p := range c.All() {
		if err := p.Start(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.Await(ctx, "the controllers answer", func() error {
		return c.Shoal(ctx, "config").Err()
	}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// layOut chooses addresses and directories; nothing runs yet.
func layOut(o Options) (*Cluster, error) {
	for _, n := range []*int{&o.Controllers, &o.Groups, &o.Replicas} {
		if *n == 0 {
			*n = 3
		}
	}
	addrs, err := freeAddrs(o.Controllers + o.Groups*o.Replicas)
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: o, Groups: map[uint64][]*Process{}}
	c.Controllers = c.replicas(0, o.Controllers, &addrs)
	for gid := uint64(1); gid <= uint64(o.Groups); gid++ {
		c.Groups[gid] = c.replicas(gid, o.Replicas, &addrs)
	}
	return c, nil
}

// replicas lays out the replicas of one group (0: the controllers).
func (c *Cluster) replicas(gid uint64, n int, addrs *[]string) []*Process {
	var ps []*Process
	var peers []string
	for i := range n {
		id := fmt.Sprintf("g%d-%d", gid, i+1)
		if gid == 0 {
			id = fmt.Sprintf("c%d", i+1)
		}
		p := &Process{ID: id, Group: gid, Addr: (*addrs)[i], Dir: filepath.Join(c.options.Dir, id),
			binary: c.options.Binary, env: c.options.Env, logFile: filepath.Join(c.options.Dir, "logs", id+".log")}
		ps = append(ps, p)
		peers = append(peers, p.ID+"="+p.Addr)
	}
	*addrs = (*addrs)[n:]
	for _, p := range ps {
		p.args = c.Args(p, peers)
	}
	return ps
}

// Args are the arguments that start a replica with the given peers
// (ID=ADDR each); none: the replica waits to be added.
func (c *Cluster) Args(p *Process, peers []string) []string {
	args := []string{"controller"}
	if p.Group != 0 {
		args = []string{"server", "--group", strconv.FormatUint(p.Group, 10),
			"--controllers", c.ControllerAddrs()}
	}
	args = append(args, "--id", p.ID, "--listen", p.Addr, "--data", p.Dir)
	if len(peers) > 0 {
		args = append(args, "--peers", strings.Join(peers, ","))
	}
	if p.Group == 0 && c.options.Shards != 0 {
		args = append(args, "--shards", strconv.Itoa(c.options.Shards))
	}
	return args
}

// Replace lays out a replica of the same label, address and directory that was
// started without peers, so that it waits to be added, and puts it in the place
// of a process that has ended.
func (c *Cluster) Replace(p *Process) *Process {
	fresh := &Process{ID: p.ID, Group: p.Group, Addr: p.Addr, Dir: p.Dir,
		binary: p.binary, env: p.env, logFile: p.logFile}
	fresh.args = c.Args(fresh, nil)
	for _, replicas := range append([][]*Process{c.Controllers}, slices.Collect(maps.Values(c.Groups))...) {
		if i := slices.Index(replicas, p); i >= 0 {
			replicas[i] = fresh
		}
	}
	return fresh
}

// ControllerAddrs is the value of --controllers.
func (c *Cluster) ControllerAddrs() string { return join(c.Controllers) }

// ReplicaAddrs is the address list of a group, as join takes it.
func (c *Cluster) ReplicaAddrs(gid uint64) string { return join(c.Groups[gid]) }

func join(ps []*Process) string {
	var addrs []string
	for _, p := range ps {
		addrs = append(addrs, p.Addr)
	}
	return strings.Join(addrs, ",")
}

// All returns every process, controllers first, then the groups by gid.
func (c *Cluster) All() []*Process {
	all := append([]*Process(nil), c.Controllers...)
	for gid := uint64(1); gid <= uint64(len(c.Groups)); gid++ {
		all = append(all, c.Groups[gid]...)
	}
	return all
}

// Shoal runs a client command of the binary against the cluster.
func (c *Cluster) Shoal(ctx context.Context, args ...string) Result {
	return run(ctx, c.options.Binary, args, slices.Concat(c.options.Env, []string{"SHOAL_CONTROLLERS=" + c.ControllerAddrs()}))
}

// JSON runs a command with -o json and decodes its output into v.
func (c *Cluster) JSON(ctx context.Context, v any, args ...string) error {
	r := c.Shoal(ctx, append(args, "-o", "json")...)
	if err := r.Err(); err != nil {
		return fmt.Errorf("shoal %s: %w", strings.Join(args, " "), err)
	}
	if err := json.Unmarshal([]byte(r.Stdout), v); err != nil {
		return fmt.Errorf("shoal %s: %w in %q", strings.Join(args, " "), err, r.Stdout)
	}
	return nil
}

// Err is an error for any exit code but 0.
func (r Result) Err() error {
	if r.Exit == 0 {
		return nil
	}
	return fmt.Errorf("exit %d: %s", r.Exit, strings.TrimSpace(r.Stderr))
}

// Leader asks the cluster's status which process leads a group (0: the
// controllers). It returns nil if nobody does, as far as known.
func (c *Cluster) Leader(ctx context.Context, gid uint64) *Process {
	s, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	addr := ""
	for _, m := range s.Controllers {
		if gid == 0 && m.Leader {
			addr = m.Address
		}
	}
	for _, g := range s.Groups {
		for _, m := range g.Replicas {
			if g.GID == gid && m.Role == "leader" {
				addr = m.Address
			}
		}
	}
	for _, p := range c.All() {
		if p.Addr == addr && p.Group == gid {
			return p
		}
	}
	return nil
}

// Await polls a condition until it holds, at most every 50 ms, and fails with
// its last error when the context ends.
func (c *Cluster) Await(ctx context.Context, what string, condition func() error) error {
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w; last: %w", what, context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close kills every process.
func (c *Cluster) Close() error {
	var errs []error
	for _, p := range c.All() {
		if p.Running() {
			errs = append(errs, p.Kill())
		}
	}
	return errors.Join(errs...)
}

// freeAddrs finds n consecutive free ports below the range that the kernel
// gives to outgoing connections, so that a stopped process finds its port again.
func freeAddrs(n int) ([]string, error) {
	for range 200 {
		first := 12000 + rand.IntN(20000-n)
		var addrs []string
		for port := first; port < first+n; port++ {
			addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			l, err := net.Listen("tcp", addr)
			if err != nil {
				break
			}
			l.Close()
			addrs = append(addrs, addr)
		}
		if len(addrs) == n {
			return addrs, nil
		}
	}
	return nil, fmt.Errorf("no %d consecutive free ports on loopback", n)
}

// limitedBuffer keeps the first 64 MiB of an output.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len() < 64<<20 {
		b.Buffer.Write(p)
	}
	return len(p), nil
}
