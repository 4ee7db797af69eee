package stall

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Claim: an operation that is not done is reported once, when the limit is over,
// and one that is done is not.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		reports := make(chan time.Duration, 2)
		report := func() { reports <- time.Since(begin) }
		late, intime := Begin(10*time.Second, report), Begin(10*time.Second, report)
		Begin(0, report)
		Begin(-1, report)
		time.Sleep(10*time.Second - 1)
		intime.Done()
		intime.Done()
		if took := <-reports; took != 10*time.Second {
			t.Errorf("reported after %v, want 10s", took)
		}
		late.Done()
		time.Sleep(time.Minute)
		if len(reports) != 0 {
			t.Error("reported again")
		}
	})
}

// Claim: a pause of the process counts for less than two of the twenty steps,
// however long it was; and a stall that goes on after it is found.
func TestPauseIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := make(chan struct{})
		w := Begin(10*time.Second, func() { close(reported) })
		pause := func(d time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.mu.last = w.mu.last.Add(-d) // the clock ran on, and nobody looked at it
		}
		time.Sleep(3 * time.Second)
		for range 3 {
			pause(time.Hour)
			time.Sleep(time.Second)
		}
		begin := time.Now()
		<-reported
		if took := time.Since(begin); took < 2*time.Second || took > 4*time.Second {
			t.Errorf("after six seconds of running and three pauses of an hour it took %v more, want about 4s less what the pauses count", took)
		}
	})
}

// Claim: the context ends by the time in which the process runs, with the error of
// a deadline.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := Context(t.Context(), time.Minute)
		defer cancel()
		<-ctx.Done()
		if took := time.Since(begin); took != time.Minute || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			t.Errorf("it ended after %v: %v", took, context.Cause(ctx))
		}
	})
}

// pausedEnv makes the test binary the process that TestPausedProcess stops.
const pausedEnv = "SHOAL_STALL_PAUSED"

// Claim: a real process that is stopped by a signal for twice the limit, in the
// middle of an operation, reports no stall when it goes on; one that runs for as
// long does.
func TestPausedProcess(t *testing.T) {
	if os.Getenv(pausedEnv) != "" {
		pausedProcess()
	}
	for _, tc := range []struct {
		name   string
		paused bool
		want   string
	}{{"paused", true, "done"}, {"running", false, "stalled"}} {
		t.Run(tc.name, func(t *testing.T) {
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPausedProcess$")
			child.Env = append(os.Environ(), pausedEnv+"=1")
			in, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			if !lines.Scan() || lines.Text() != "begun" {
				t.Fatalf("the process says %q", lines.Text())
			}
			if tc.paused {
				signal(t, child, syscall.SIGSTOP)
				time.Sleep(2 * pausedLimit) // load: the pause itself
				signal(t, child, syscall.SIGCONT)
				if _, err := in.Write([]byte("end\n")); err != nil {
					t.Fatal(err)
				}
			}
			lines.Scan()
			if got := lines.Text(); got != tc.want {
				t.Errorf("the process says %q, want %q", got, tc.want)
			}
			in.Close()
			if err := child.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

const pausedLimit = time.Second

// pausedProcess does one operation, which ends when its input says so.
func pausedProcess() {
	stalled := make(chan struct{})
	w := Begin(pausedLimit, func() { close(stalled) })
	os.Stdout.WriteString("begun\n")
	ended := make(chan struct{})
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		if strings.TrimSpace(line) == "end" {
			close(ended)
		}
	}()
	select {
	case <-ended:
		w.Done()
		os.Stdout.WriteString("done\n")
	case <-stalled:
		os.Stdout.WriteString("stalled\n")
	}
	os.Exit(0)
}

func signal(t *testing.T, p *exec.Cmd, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
