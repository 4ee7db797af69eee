package raftgroup

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/raftgroup/pebblestore"
)

// pausedEnv names the directory of the process that TestPausedReplica stops.
const pausedEnv = "SHOAL_RAFTGROUP_PAUSED"

// pausedStall is that process's stall limit.
const pausedStall = 2 * time.Second

// Claim: a replica that writes to its disk all the time, in a process that is
// stopped by a signal for longer than the stall limit goes on, each time.
func TestPausedReplica(t *testing.T) {
	if dir := os.Getenv(pausedEnv); dir != "" {
		pausedReplica(t, dir)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPausedReplica$")
	child.Env = append(os.Environ(), pausedEnv+"="+t.TempDir())
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() {
		t.Helper()
		if !lines.Scan() || lines.Text() != "applied" {
			t.Fatalf("the replica says %q", lines.Text())
		}
	}
	for range 2 {
		for range 200 {
			next()
		}
		if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pausedStall + pausedStall/2) // load: the pause itself
		if err := child.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		next()
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
}

// pausedReplica proposes until the process is killed, and says so each time.
func pausedReplica(t *testing.T, dir string) {
	stop := func(err error) {
		fmt.Println("it stops:", err)
		os.Exit(1)
	}
	log, err := logstore.Open(logstore.KindBolt, dir, logstore.Options{})
	if err != nil {
		stop(err)
	}
	state, err := pebblestore.Open(pebblestore.Options{Dir: dir + "/state", StallLimit: pausedStall, MemTableBytes: 256 << 10, OnFatal: stop})
	if err != nil {
		stop(err)
	}
	c := newCluster(t, 1)
	c.tune = func(_ *node, o *Options) {
		o.Log, o.Store, o.StallLimit, o.OnFatal = log, state, pausedStall, stop
		o.SnapshotLogBytes, o.TrailingLogBytes = 256<<10, 64<<10
	}
	c.nodes[0].start()
	n := c.leader()
	for i := 0; ; i++ {
		if _, err := n.replica.Propose(context.Background(), set("k%d=%s", i%100, make([]byte, 4<<10))); err != nil {
			stop(err)
		}
		fmt.Println("applied")
	}
}
