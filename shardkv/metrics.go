package shardkv

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalkv/shoal/shardkv/kvfsm"
	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// metrics are what an operator watches of one replica. Hot paths hold the
// child metrics, so that counting costs an atomic addition.
type metrics struct {
	// outcomes are by kind of operation, then by code.
	outcomes  [kindsOfOperations]map[kvpb.Code]prometheus.Counter
	operation *prometheus.CounterVec
	message   *prometheus.HistogramVec
	reads     prometheus.Observer
	writes    prometheus.Observer
	handoffs  *prometheus.CounterVec
	copied    prometheus.Counter
	pause     prometheus.Histogram
	throttled prometheus.Counter
	alarms    prometheus.Counter
	polls     *prometheus.CounterVec
}

// The kinds of operations that are counted.
const (
	kindGet = iota
	kindPut
	kindAppend
	kindDelete
	kindScan
	kindOther // an operation of no kind that this version knows
	kindsOfOperations
)

var kindNames = [kindsOfOperations]string{"get", "put", "append", "delete", "scan", "other"}

func kindOf(op *kvpb.Operation) int {
	switch op.GetKind().(type) {
	case *kvpb.Operation_Get:
		return kindGet
	case *kvpb.Operation_Put:
		return kindPut
	case *kvpb.Operation_Append:
		return kindAppend
	case *kvpb.Operation_Delete:
		return kindDelete
	}
	return kindOther
}

func newMetrics(r prometheus.Registerer, s *Server) *metrics {
	latency := prometheus.ExponentialBuckets(50e-6, 2, 18) // 50 us to 6.5 s
	m := &metrics{
		operation: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_kv_operations_total", Help: "Operations answered, by kind and outcome."}, []string{"kind", "code"}),
		message: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shoal_kv_message_seconds", Help: "Time to answer one message of operations.", Buckets: latency}, []string{"kind"}),
		handoffs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_kv_handoff_proposals_total", Help: "Handoff commands proposed here, by kind."}, []string{"kind"}),
		copied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_kv_handoff_fetched_bytes_total", Help: "Bytes of shards fetched from other groups."}),
		pause: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_kv_handoff_pause_seconds", Help: "Time a shard stayed frozen before its new holder served it.", Buckets: latency}),
		throttled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_kv_throttled_writes_total", Help: "Messages slowed because they write to a shard whose tail does not get short."}),
		alarms: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_kv_handoff_digest_mismatches_total", Help: "Installs refused because the copy did not match its digest. Never rises without a fault of the storage."}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_kv_controller_polls_total", Help: "Polls of the controllers, by result."}, []string{"result"}),
	}
	for kind := range m.outcomes {
		m.outcomes[kind] = map[kvpb.Code]prometheus.Counter{}
		for number := range kvpb.Code_name {
			m.outcomes[kind][kvpb.Code(number)] = m.operation.WithLabelValues(kindNames[kind], kvpb.Code(number).String())
		}
	}
	m.reads, m.writes = m.message.WithLabelValues("read"), m.message.WithLabelValues("write")
	parked := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shoal_kv_parked_requests", Help: "Requests waiting for a shard that moves."},
		func() float64 { return float64(s.parking.count()) })
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shoal_kv_requests_in_flight", Help: "Requests being executed."},
		func() float64 { n, _ := s.total.inFlight(); return float64(n) })
	for _, c := range []prometheus.Collector{m.operation, m.message, m.handoffs, m.copied, m.pause, m.throttled,
		m.alarms, m.polls, parked, inFlight, &contents{s}} {
		r.MustRegister(c)
	}
	return m
}

// observe records how long an executed message took.
func (m *metrics) observe(writes bool, d time.Duration) {
	if writes {
		m.writes.Observe(d.Seconds())
	} else {
		m.reads.Observe(d.Seconds())
	}
}

// scanned counts one scan.
func (m *metrics) scanned(code kvpb.Code) {
	if c := m.outcomes[kindScan][code]; c != nil {
		c.Inc()
	}
}

// count counts the outcomes of one message's operations.
func (m *metrics) count(operations []*kvpb.Operation, outcomes []*kvpb.Outcome) {
	// Most messages have one kind and one outcome throughout: count runs, not
	// operations.
	for start := 0; start < len(outcomes); {
		kind, code := kindOf(operations[start]), outcomes[start].GetCode()
		end := start + 1
		for end < len(outcomes) && outcomes[end].GetCode() == code && kindOf(operations[end]) == kind {
			end++
		}
		if c := m.outcomes[kind][code]; c != nil {
			c.Add(float64(end - start))
		}
		start = end
	}
}

var (
	descShards = prometheus.NewDesc("shoal_kv_shards", "Shards that this group has met, by phase.", []string{"phase"}, nil)
	descKeys   = prometheus.NewDesc("shoal_kv_keys", "Keys in the shards that this group serves.", nil, nil)
	descBytes  = prometheus.NewDesc("shoal_kv_bytes", "Bytes of keys and values in the shards that this group serves.", nil, nil)
)

// contents shows what this replica's shards hold, from its applied state.
type contents struct{ s *Server }

// Describe implements prometheus.Collector.
func (c *contents) Describe(ch chan<- *prometheus.Desc) {
	ch <- descShards
	ch <- descKeys
	ch <- descBytes
}

// Collect implements prometheus.Collector. There is nothing to show before the
// replica is open.
func (c *contents) Collect(ch chan<- prometheus.Metric) {
	n := c.s.node.Load()
	if n == nil {
		return
	}
	records, err := n.readRecords()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descShards, err)
		return
	}
	var phases [kvfsm.PhasePassed + 1]int
	var keys, bytes uint64
	for i := range records {
		r := &records[i]
		phases[r.Phase]++
		if r.Phase.Serves() {
			keys += r.Keys
			bytes += r.Bytes
		}
	}
	for phase, count := range phases {
		ch <- prometheus.MustNewConstMetric(descShards, prometheus.GaugeValue, float64(count), kvfsm.Phase(phase).String())
	}
	ch <- prometheus.MustNewConstMetric(descKeys, prometheus.GaugeValue, float64(keys))
	ch <- prometheus.MustNewConstMetric(descBytes, prometheus.GaugeValue, float64(bytes))
}
