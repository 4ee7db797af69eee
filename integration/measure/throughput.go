package main

import (
	"context"
	"fmt"
)

// report is the JSON of `shoal bench`.
type report struct {
	All struct {
		OpsPerSecond float64 `json:"ops_per_second"`
		Errors       int     `json:"errors"`
		P50          float64 `json:"p50_us"`
		P99          float64 `json:"p99_us"`
	} `json:"all"`
}

// throughput measures puts and linearizable gets of one group of three
// processes, at several numbers of clients, interleaved.
func throughput(ctx context.Context, b *bench) error {
	c, err := b.start(ctx, "throughput", 1)
	if err != nil {
		return err
	}
	defer c.Close()
	yardstick, err := syncsPerSecond(b.data)
	if err != nil {
		return err
	}
	// The first run also writes every key, so that gets meet values.
	if err := c.Shoal(ctx, "bench", "--load", "--duration", "2s", "--read-fraction", "0").Err(); err != nil {
		return err
	}
	clients := []int{1, 16, 64, 256}
	type figure struct{ rate, p50, p99 []float64 }
	figures := map[string]map[int]*figure{"put": {}, "get": {}}
	for range b.repeat {
		for _, n := range clients {
			for op, fraction := range map[string]string{"put": "0", "get": "1"} {
				var r report
				if err := c.JSON(ctx, &r, "bench", "--clients", fmt.Sprint(n), "--duration", b.seconds.String(), "--read-fraction", fraction); err != nil {
					return err
				}
				if r.All.Errors > 0 {
					return fmt.Errorf("%d clients, %s: %d errors", n, op, r.All.Errors)
				}
				f := figures[op][n]
				if f == nil {
					f = &figure{}
					figures[op][n] = f
				}
				f.rate, f.p50, f.p99 = append(f.rate, r.All.OpsPerSecond), append(f.p50, r.All.P50), append(f.p99, r.All.P99)
			}
		}
	}
	fmt.Printf("One group of three processes, fsync on, 128 B values, 100,000 keys; median of %d runs of %v.\n", b.repeat, b.seconds)
	fmt.Printf("Yardstick: %.0f fsyncs of a 4 KB append per second on the same disk.\n\n", yardstick)
	fmt.Println("| clients | puts/s | per fsync | p50 / p99 ms | gets/s | p50 / p99 ms |\n|---:|---:|---:|---:|---:|---:|")
	for _, n := range clients {
		put, get := figures["put"][n], figures["get"][n]
		fmt.Printf("| %d | %.0f | %.2f | %.2f / %.2f | %.0f | %.2f / %.2f |\n", n,
			median(put.rate), median(put.rate)/yardstick, median(put.p50)/1000, median(put.p99)/1000,
			median(get.rate), median(get.p50)/1000, median(get.p99)/1000)
	}
	fmt.Println()
	return nil
}
