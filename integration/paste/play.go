package paste

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A Play runs the blocks of the README one after the other, in one shell, as a
// reader does who pastes them: with the ports, the directory and the durations of
// the test in place of those that are written there.
type Play struct {
	Root  string   // of the repository
	Shell []string // reads commands from stdin, and stops at nothing
	Base  int      // the first of 12 free ports
	Data  string   // directory of the cluster
}

// readyMax bounds the start of a cluster on a busy machine, playMax the rest.
const (
	readyMax = 2 * time.Minute
	playMax  = 5 * time.Minute
)

// Run plays, and returns what the shell printed.
func (p *Play) Run(ctx context.Context) (transcript string, err error) {
	blocks, err := Blocks(p.Root)
	if err != nil {
		return "", err
	}
	var server, rest []string
	for _, b := range blocks {
		switch {
		case b.Doc != "README.md" || b.Language != "sh":
		case strings.Contains(b.Text, "dev --processes"):
			server = strings.Split(strings.TrimSpace(p.here(b.Text)), "\n")
		case strings.Contains(b.Text, "bin/shoal"):
			rest = append(rest, p.here(b.Text))
		}
	}
	if len(server) != 2 || len(rest) < 4 {
		return "", errors.New("the README has other blocks than those that are played")
	}
	if out, err := p.command(ctx, server[0]).CombinedOutput(); err != nil {
		return string(out), fmt.Errorf("%s: %w", server[0], err)
	}
	stop, err := p.start(ctx, server[1])
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stop()) }()
	ctx, cancel := context.WithTimeout(ctx, playMax)
	defer cancel()
	shell := exec.CommandContext(ctx, p.Shell[0], p.Shell[1:]...)
	shell.Dir, shell.Env = p.Root, p.environment()
	shell.Stdin = strings.NewReader(strings.Join(rest, ""))
	out, err := shell.CombinedOutput()
	return string(out), err
}

// here puts the test's own places and times into a text.
func (p *Play) here(text string) string {
	for port := 7411; port >= 7400; port-- {
		text = strings.ReplaceAll(text, fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", p.Base+port-7400))
	}
	return strings.NewReplacer("/tmp/shoal-play", p.Data, "--duration 20s", "--duration 3s", "--duration 1m", "--duration 10s",
		"dev --processes", fmt.Sprintf("dev --processes --listen 127.0.0.1:%d", p.Base), "bin/shoal", p.binary()).Replace(text)
}

// binary is where the test builds the program: not where a developer has one.
func (p *Play) binary() string { return filepath.Join(p.Data, "shoal") }

func (p *Play) environment() []string {
	return append(os.Environ(), fmt.Sprintf("SHOAL_CONTROLLERS=127.0.0.1:%d", p.Base), "SHOAL_TIMEOUT=30s")
}

func (p *Play) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+line)
	cmd.Dir, cmd.Env = p.Root, p.environment()
	return cmd
}

// start starts the cluster and waits until it is ready.
func (p *Play) start(ctx context.Context, line string) (stop func() error, err error) {
	cmd := p.command(ctx, line)
	var out bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		defer r.Close()
		buf, told := make([]byte, 4096), false
		for {
			n, err := r.Read(buf)
			out.Write(buf[:n])
			switch {
			case !told && strings.Contains(out.String(), "\nready controllers="):
				told = true
				ready <- nil
			case err != nil && !told:
				ready <- fmt.Errorf("the cluster ended: %s", out.String())
				return
			case errors.Is(err, io.EOF), err != nil:
				return
			}
		}
	}()
	stop = func() error { return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()) }
	select {
	case err = <-ready:
	case <-time.After(readyMax):
		err = fmt.Errorf("the cluster is not ready after %v", readyMax)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return stop, nil
}

// Told checks a transcript for what a reader must have seen.
func Told(transcript string) error {
	var missing []error
	for _, text := range []string{
		"version 1\n", "hello\n", "hello, world\n", // the first five minutes
		"config 2: ", "done: 341 shards, ", "OPS/S", "removed ", // grow
		"replica ",                                            // break: the one that was started again
		"; nothing is left on group 1", "LINEARIZABLE", "yes", // shrink, and the verdict
	} {
		if !strings.Contains(transcript, text) {
			missing = append(missing, fmt.Errorf("nothing says %q", text))
		}
	}
	for _, text := range []string{"shoal: ", "command not found", "bad pattern", "no matches found", "not found"} {
		if strings.Contains(transcript, text) {
			missing = append(missing, fmt.Errorf("something says %q", text))
		}
	}
	return errors.Join(missing...)
}

// FreePorts returns the first of n ports of loopback in a row that are free now.
func FreePorts(n int) (base int, err error) {
	for base := 21000 + os.Getpid()%9000; base < 32000; base += n {
		if portsAreFree(base, n) {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no %d ports in a row are free", n)
}

func portsAreFree(base, n int) bool {
	for port := base; port < base+n; port++ {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil || l.Close() != nil {
			return false
		}
	}
	return true
}
