package explore

import "testing"

// How many states a second, on a bound that is cut off.
func BenchmarkSearch(b *testing.B) {
	bound, _ := FindBound("g2c5")
	bound.StatesMax, bound.Live = 200_000, 0
	for b.Loop() {
		r := Run(bound, Options{})
		if r.Violation != nil {
			b.Fatal(r.Violation)
		}
		b.ReportMetric(float64(r.States)/r.Elapsed.Seconds(), "states/s")
	}
}
