package host

import (
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/logstore"
)

// newAppendSeconds makes the histogram of what an append to the log takes, its fsync
// included: that is what a write waits for.
func newAppendSeconds() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "shoal_raft_append_seconds", Help: "Time to append entries to the log, fsync included.",
		Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18), // 50 us to 6.5 s
	})
}

// A timedLog measures the appends to a log store.
type timedLog struct {
	logstore.LogStore
	seconds prometheus.Observer
}

// StoreLog implements raft.LogStore.
func (l timedLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (l timedLog) StoreLogs(logs []*raft.Log) error {
	start := time.Now()
	err := l.LogStore.StoreLogs(logs)
	l.seconds.Observe(time.Since(start).Seconds())
	return err
}

// descDisk is the space that the replica's stores take.
var descDisk = prometheus.NewDesc("shoal_raft_disk_bytes", "Bytes on disk, of the log and of the machine's state.", []string{"part"}, nil)

// replicaCollector turns the replica's status into metrics when they are asked
// for.
type replicaCollector struct{ replica *runningReplica }

type gauge struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*raftgroup.Status) float64
}

func newGauge(name, help string, kind prometheus.ValueType, value func(*raftgroup.Status) float64) gauge {
	return gauge{desc: prometheus.NewDesc("shoal_raft_"+name, help, nil, nil), kind: kind, value: value}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var replicaGauges = []gauge{
	newGauge("leader", "1 if this replica leads its group.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return flag(s.Role == raftgroup.RoleLeader) }),
	newGauge("ready", "1 if this replica leads and serves reads.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return flag(s.Ready) }),
	newGauge("has_leader", "1 if this replica knows a leader.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return flag(s.Leader != "") }),
	newGauge("failed", "1 if this replica has stopped because it can't go on.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return flag(s.Failed != nil) }),
	newGauge("term", "Current term.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return float64(s.Term) }),
	newGauge("applied_index", "Index that the machine's visible state stands at.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return float64(s.AppliedIndex) }),
	newGauge("commit_index", "Index that is known to be committed.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return float64(s.CommitIndex) }),
	newGauge("last_index", "Index of the newest log entry.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return float64(s.LastIndex) }),
	newGauge("log_bytes", "Bytes of log entries.", prometheus.GaugeValue,
		func(s *raftgroup.Status) float64 { return float64(s.LogBytes) }),
	newGauge("proposals_total", "Commands that were admitted.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.Proposals) }),
	newGauge("entries_total", "Entries that were handed to Raft.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.Entries) }),
	newGauge("busy_total", "Proposals refused because too many bytes were queued.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.Busy) }),
	newGauge("reads_total", "Read barriers that succeeded.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.Reads) }),
	newGauge("read_rounds_total", "Rounds that served the read barriers.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.ReadRounds) }),
	newGauge("leader_gained_total", "Times this replica became leader.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.LeaderGained) }),
	newGauge("bounces_total", "Restarts of Raft inside the replica.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.Bounces) }),
	newGauge("handovers_total", "Times this replica handed leadership over because it limped.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.Handovers) }),
	newGauge("snapshots_sent_total", "Copies of the state that were sent to other replicas.", prometheus.CounterValue,
		func(s *raftgroup.Status) float64 { return float64(s.Counters.SnapshotsSent) }),
}

// Describe implements prometheus.Collector.
func (c *replicaCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descDisk
	for _, g := range replicaGauges {
		ch <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *replicaCollector) Collect(ch chan<- prometheus.Metric) {
	if n, err := c.replica.log.SizeBytes(); err == nil {
		ch <- prometheus.MustNewConstMetric(descDisk, prometheus.GaugeValue, float64(n), "log")
	}
	ch <- prometheus.MustNewConstMetric(descDisk, prometheus.GaugeValue, float64(c.replica.store.DiskUsage()), "state")
	s := c.replica.replica.Status()
	for _, g := range replicaGauges {
		ch <- prometheus.MustNewConstMetric(g.desc, g.kind, g.value(&s))
	}
}
