// Package dev runs a whole cluster on one machine: real TCP, real fsync, real
// Raft, on loopback; all replicas in this process, or each in its own.
//
// # The directory
//
//	dev.json   the layout: ids, addresses and process ids (type Layout)
//	dev.lock   held by the process that runs the cluster
//	dev.sock   where `shoal dev restart` asks that process for something
//	logs/      a log file for each replica
//	ID/        the data directory of a replica
//
// Run owns everything it starts: the members, the control socket, and a thread
// that child processes are tied to. It ends them before it returns. The package
// may import what runs replicas (package replica) and clerk.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Options say what cluster to run, and for whom.
type Options struct {
	Groups             int // joined at start
	SpareGroups        int // run, but wait to be joined
	Replicas           int // of each group
	ControllerReplicas int
	Shards             int
	// Listen is the first controller's address; the other replicas take the next
	// ports. Port 0: each replica takes any free one.
	Listen string
	// HTTP is where the first controller serves metrics and probes; the others take
	// the next ports, or with port 0 any free one. Empty: nobody serves them.
	HTTP string
	// Data is the directory; empty: a new one, deleted at the end.
	Data string
	// Given are the names of the flags that were given: where Data has a cluster
	// already, they must agree with it, and the others are ignored.
	Given map[string]bool

	// Launch starts the members.
	Launch Launcher
	// Invocation is how the program was started, as words to show.
	Invocation []string
	// ControllersDefault is where commands look for the cluster by themselves.
	ControllersDefault string
	Stdout             io.Writer // what was promised, and no more
	Stderr             io.Writer
}

// UsageError is a combination of options that makes no sense.
type UsageError struct{ Problem string }

func (e *UsageError) Error() string { return e.Problem }

func usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// Check returns what is wrong with the options, as a *UsageError.
func (o Options) Check() error {
	odd := func(n int) bool { return n == 1 || n == 3 || n == 5 || n == 7 }
	switch {
	case o.Groups < 1 || o.Groups > groupsMax:
		return usagef("--groups is %d: it is 1 to %d", o.Groups, groupsMax)
	case o.SpareGroups < 0 || o.SpareGroups > groupsMax:
		return usagef("--spare-groups is %d: it is 0 to %d", o.SpareGroups, groupsMax)
	case !odd(o.Replicas):
		return usagef("--replicas is %d: it is 1, 3, 5 or 7", o.Replicas)
	case !odd(o.ControllerReplicas):
		return usagef("--controller-replicas is %d: it is 1, 3, 5 or 7", o.ControllerReplicas)
	}
	if err := shardcfg.CheckShardCount(o.Shards); err != nil {
		return usagef("--shards is %d: %v", o.Shards, err)
	}
	if _, _, err := splitListen("listen", o.Listen); err != nil || o.HTTP == "" {
		return err
	}
	_, _, err := splitListen("http", o.HTTP)
	return err
}

const groupsMax = 100

// A cluster is one Run in progress.
type cluster struct {
	o         Options
	dir       string
	temporary bool
	lock      *os.File
	ended     chan *running // members that ended by themselves
	stopping  chan struct{} // closed when the end has begun
	watches   sync.WaitGroup

	// mu guards the members and the layout, and is held while one is restarted.
	mu struct {
		sync.Mutex
		layout  *Layout
		members map[string]*running // by id; a dead one stays until it is replaced
	}
}

// running is a member that was started.
type running struct {
	spec Spec
	Member
}

// Run runs a cluster until ctx ends. It returns nil if it was ready and then
// stopped in order.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.Check(); err != nil {
		return err
	}
	c := &cluster{o: o, ended: make(chan *running, 16), stopping: make(chan struct{})}
	c.mu.members = map[string]*running{}
	if err := c.openDir(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.closeDir()) }()
	if err := c.layOut(); err != nil {
		return err
	}
	defer c.stopAll()
	if err := c.startAll(ctx); err != nil {
		return err
	}
	control, err := c.listenControl()
	if err != nil {
		return err
	}
	defer control.close()
	if err := c.save(); err != nil {
		return err
	}
	if err := c.printMembers(); err != nil {
		return err
	}
	if err := c.becomeReady(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // interrupted: that is how it ends
		}
		return err
	}
	if err := c.printReady(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-c.ended:
			c.noteEnd(r)
		}
	}
}

// openDir makes or takes the directory, and locks it.
func (c *cluster) openDir() error {
	c.dir = c.o.Data
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "shoal-dev-")
		if err != nil {
			return err
		}
		c.dir, c.temporary = dir, true
	}
	dir, err := filepath.Abs(c.dir)
	if err != nil {
		return err
	}
	c.dir = dir
	if err := os.MkdirAll(filepath.Join(c.dir, "logs"), 0o700); err != nil {
		return err
	}
	if c.lock, err = os.OpenFile(filepath.Join(c.dir, "dev.lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(c.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("%s is in use by another shoal dev: %w", c.dir, err), c.lock.Close())
	}
	return nil
}

// closeDir lets go of the directory, and deletes it if it was temporary.
func (c *cluster) closeDir() error {
	err := c.lock.Close()
	if c.temporary {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// layOut takes the layout that the directory has, or makes one, and sees that
// every port is free.
func (c *cluster) layOut() error {
	l, err := loadLayout(c.dir)
	if errors.Is(err, os.ErrNotExist) {
		l, err = newLayout(c.o)
	} else if err == nil {
		err = l.agrees(c.o)
	}
	if err != nil {
		return err
	}
	if err := l.checkPorts(); err != nil {
		return err
	}
	if err := l.serveHTTP(c.o.HTTP); err != nil {
		return err
	}
	l.PID, l.Socket = os.Getpid(), socketPath(c.dir)
	for r := range l.all() {
		r.PID = 0
	}
	c.mu.layout = l
	return nil
}

func (c *cluster) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.layout.save(c.dir)
}

// startAll starts every member of the layout.
func (c *cluster) startAll(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, spec := range c.mu.layout.specs(c.dir) {
		if err := c.startLocked(ctx, spec); err != nil {
			return err
		}
	}
	return nil
}

// startLocked starts one member and watches it.
func (c *cluster) startLocked(ctx context.Context, spec Spec) error {
	m, err := c.o.Launch(ctx, spec)
	if err != nil {
		return fmt.Errorf("replica %s at %s: %w", spec.ID, spec.Address, err)
	}
	r := &running{spec: spec, Member: m}
	c.mu.members[spec.ID] = r
	c.mu.layout.find(spec.ID).PID = m.PID()
	c.watches.Go(func() {
		<-m.Done()
		select {
		case c.ended <- r:
		case <-c.stopping:
		}
	})
	return nil
}

// stopAll stops the groups before the controllers, which they may still ask.
func (c *cluster) stopAll() {
	close(c.stopping)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, controllers := range []bool{false, true} {
		var wg sync.WaitGroup
		for _, r := range c.mu.members {
			if (r.spec.Group == 0) == controllers {
				wg.Go(func() { r.Stop(stopTimeout) })
			}
		}
		wg.Wait()
	}
	c.watches.Wait()
}

const stopTimeout = 10 * time.Second

// noteEnd says that a member is dead, unless it was replaced meanwhile.
func (c *cluster) noteEnd(r *running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.members[r.spec.ID] != r {
		return
	}
	c.mu.layout.find(r.spec.ID).PID = 0
	if err := c.mu.layout.save(c.dir); err != nil {
		fmt.Fprintf(c.o.Stderr, "shoal dev: %v\n", err)
	}
	fmt.Fprintf(c.o.Stderr, "replica %s ended: %s. Bring it back: %s\n", r.spec.ID, reason(r), c.command("dev", "restart", r.spec.ID))
}

// restart starts members anew: the named one, which is stopped first if it is
// alive, or with all those that are dead. It returns their lines.
func (c *cluster) restart(ctx context.Context, id string, all bool) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for _, spec := range c.mu.layout.specs(c.dir) {
		r := c.mu.members[spec.ID]
		if !all && spec.ID != id || all && r != nil && !r.dead() {
			continue
		}
		if r != nil {
			r.Stop(stopTimeout)
		}
		if err := c.startLocked(ctx, spec); err != nil {
			return lines, err
		}
		lines = append(lines, c.mu.layout.line(spec.ID))
		if _, err := fmt.Fprintln(c.o.Stdout, c.mu.layout.line(spec.ID)); err != nil {
			return lines, err
		}
	}
	if len(lines) == 0 && !all {
		return nil, &UnknownError{ID: id, Known: c.mu.layout.ids()}
	}
	return lines, c.mu.layout.save(c.dir)
}

// UnknownError names a replica that the cluster does not have.
type UnknownError struct {
	ID    string
	Known []string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no replica %q: there are %s", e.ID, strings.Join(e.Known, ", "))
}

func (r *running) dead() bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

func reason(r *running) string {
	err := r.Err()
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil:
		return "without an error"
	case errors.As(err, &exit):
		return exit.String() + ", see " + r.spec.LogFile
	}
	return err.Error()
}
