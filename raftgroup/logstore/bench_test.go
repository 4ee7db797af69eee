package logstore

import (
	"testing"

	"github.com/hashicorp/raft"
)

// BenchmarkAppend is what one append costs, and what of it are bolt's two syncs; the
// rest is that of the hard state.
func BenchmarkAppend(b *testing.B) {
	type appender interface{ StoreLogs(logs []*raft.Log) error }
	for name, part := range map[string]func(s *checked) appender{
		"whole": func(s *checked) appender { return s },
		"bolt":  func(s *checked) appender { return s.b },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := open(KindBolt, b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			data, index := make([]byte, 8<<10), uint64(0)
			for b.Loop() {
				index++
				if err := part(s).StoreLogs([]*raft.Log{{Index: index, Term: 1, Data: data}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
