package clerk_test

import (
	"fmt"
	"sync"
	"testing"
)

// BenchmarkPut measures the client: the servers answer from memory, in the same
// process. ops/message shows the packing.
func BenchmarkPut(b *testing.B) {
	for _, callers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			f := newFakeCluster(2, 3, 16)
			defer f.close()
			c := f.open(b, nil)
			value := make([]byte, 128)
			b.ReportAllocs()
			var wait sync.WaitGroup
			work := make(chan int, callers)
			b.ResetTimer()
			for range callers {
				wait.Go(func() {
					for i := range work {
						if _, err := c.Put(b.Context(), fmt.Appendf(nil, "key%d", i%10000), value); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := range b.N {
				work <- i
			}
			close(work)
			wait.Wait()
			b.ReportMetric(float64(f.ops)/float64(max(f.messages, 1)), "ops/message")
		})
	}
}
