// Command measure makes the figures of docs/performance.md: operations per
// second of one group of three processes, the time from join to settled, scans, and
// what an idle `shoal dev` costs. Every figure can be made again:
//
//	go run ./integration/measure             all of them
//	go run ./integration/measure throughput  or join, scan, idle
//
// It prints Markdown tables. Run it from the module's root on a machine that
// does nothing else; data goes below -data, on a real disk. Each table begins
// with a yardstick that was measured in the same minute, so that figures of
// different machines can be put in relation.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/shoalkv/shoal/integration/cluster"
)

// A bench is what one run of the command works with.
type bench struct {
	binary, data string
	seconds      time.Duration // of one measurement
	repeat       int
}

func main() {
	data := flag.String("data", "accept-data", "directory for data, deleted afterwards")
	seconds := flag.Duration("each", 5*time.Second, "length of one measurement")
	repeat := flag.Int("repeat", 3, "measurements of each figure; the median is printed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, &bench{data: *data, seconds: *seconds, repeat: *repeat}, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, b *bench, names []string) error {
	parts := []struct {
		name string
		run  func(context.Context, *bench) error
	}{{"throughput", throughput}, {"join", joins}, {"scan", scans}, {"idle", idle}}
	dir, err := filepath.Abs(b.data)
	if err != nil {
		return err
	}
	b.data = filepath.Join(dir, "measure")
	if err := os.MkdirAll(b.data, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(b.data)
	if b.binary, err = cluster.Build(b.data); err != nil {
		return err
	}
	fmt.Printf("%s/%s, %d cores, %s; %s\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), time.Now().Format("2006-01-02"))
	for _, p := range parts {
		if len(names) > 0 && !slices.Contains(names, p.name) {
			continue
		}
		if err := p.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// dir makes an empty directory for one cluster.
func (b *bench) dir(name string) (string, error) {
	dir := filepath.Join(b.data, name)
	return dir, errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}

// start starts three controllers and groups of three, and joins the first.
func (b *bench) start(ctx context.Context, name string, groups int) (*cluster.Cluster, error) {
	dir, err := b.dir(name)
	if err != nil {
		return nil, err
	}
	c, err := cluster.Start(ctx, cluster.Options{Binary: b.binary, Dir: dir, Groups: groups})
	if err != nil {
		return nil, err
	}
	return c, c.Await(ctx, "group 1 has joined", func() error {
		return c.Shoal(ctx, "join", "1", c.ReplicaAddrs(1), "--wait").Err()
	})
}

func median(xs []float64) float64 {
	s := slices.Sorted(slices.Values(xs))
	return s[len(s)/2]
}

// syncsPerSecond is the yardstick: 4 KB appends with fsync to one file.
func syncsPerSecond(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "yardstick"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 4096)
	n, start := 0, time.Now()
	for time.Since(start) < time.Second {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
