package sim

import "time"

// Stats count what happened in a run, or in many.
type Stats struct {
	Events     uint64
	Virtual    time.Duration
	Operations int // calls of clients, those apart that read everything in the end
	Done       int
	NotDone    int
	Unknown    int
	Scans      int // calls that are scans, and their pages
	Pages      int
	Repeats    int // writes answered from a session's record
	Expired    int // sessions refused for their age
	Handoffs   int // shards that arrived and were dropped where they came from
	Installs   int // shards that arrived
	Discards   int // stagings given up
	Configs    int
	Joins      int // groups named for the first time, or again with other weights or replicas
	Pins       int // moves, and shards let go
	Elections  int
	Replayed   int // entries that replicas applied again after a crash
	Drained    int // groups that left and were drained
	Reborn     int // groups that came back as another incarnation
	Repairs    int // shards that serve again after a group was destroyed
	Lossy      int // of which writes were lost
	Crashes    int // replicas that lost power
	DiskStops  int // replicas that stopped because their disk failed
	Rests      int // times that the faults rested, because the work lagged
	// Worked is what had ended when the faults stopped.
	Worked struct{ Operations, Handoffs int }
	// Happened counts the faults of each kind.
	Happened [kindCount]int
}

func (s *Stats) happened(k Kind) { s.Happened[k]++ }

// ended counts the calls of clients that have ended.
func (s *Stats) ended() int { return s.Done + s.NotDone + s.Unknown }

// Add adds another run's counts.
func (s *Stats) Add(o *Stats) {
	s.Events += o.Events
	s.Virtual += o.Virtual
	s.Operations += o.Operations
	s.Done += o.Done
	s.NotDone += o.NotDone
	s.Unknown += o.Unknown
	s.Scans += o.Scans
	s.Pages += o.Pages
	s.Repeats += o.Repeats
	s.Expired += o.Expired
	s.Handoffs += o.Handoffs
	s.Installs += o.Installs
	s.Discards += o.Discards
	s.Configs += o.Configs
	s.Joins += o.Joins
	s.Pins += o.Pins
	s.Elections += o.Elections
	s.Replayed += o.Replayed
	s.Drained += o.Drained
	s.Reborn += o.Reborn
	s.Repairs += o.Repairs
	s.Lossy += o.Lossy
	s.Crashes += o.Crashes
	s.DiskStops += o.DiskStops
	s.Rests += o.Rests
	s.Worked.Operations += o.Worked.Operations
	s.Worked.Handoffs += o.Worked.Handoffs
	for k := range s.Happened {
		s.Happened[k] += o.Happened[k]
	}
}
