package shardkv

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// metrics are what an operator watches of one replica. Hot paths hold the
// child metrics, so that counting costs an atomic addition.
type metrics struct {
	outcomes  map[kvpb.Code]prometheus.Counter
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

func newMetrics(r prometheus.Registerer, s *Server) *metrics {
	latency := prometheus.ExponentialBuckets(50e-6, 2, 18) // 50 us to 6.5 s
	m := &metrics{
		operation: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_kv_operations_total", Help: "Operations answered, by outcome."}, []string{"code"}),
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
		outcomes: map[kvpb.Code]prometheus.Counter{},
	}
	for number := range kvpb.Code_name {
		m.outcomes[kvpb.Code(number)] = m.operation.WithLabelValues(kvpb.Code(number).String())
	}
	m.reads, m.writes = m.message.WithLabelValues("read"), m.message.WithLabelValues("write")
	parked := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shoal_kv_parked_requests", Help: "Requests waiting for a shard that moves."},
		func() float64 { return float64(s.parking.count()) })
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shoal_kv_requests_in_flight", Help: "Requests being executed."},
		func() float64 { n, _ := s.total.inFlight(); return float64(n) })
	for _, c := range []prometheus.Collector{m.operation, m.message, m.handoffs, m.copied, m.pause, m.throttled,
		m.alarms, m.polls, parked, inFlight} {
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

// count counts the outcomes of one message.
func (m *metrics) count(outcomes []*kvpb.Outcome) {
	// Most messages have one outcome throughout: count runs, not operations.
	for start := 0; start < len(outcomes); {
		end := start + 1
		for end < len(outcomes) && outcomes[end].GetCode() == outcomes[start].GetCode() {
			end++
		}
		if c := m.outcomes[outcomes[start].GetCode()]; c != nil {
			c.Add(float64(end - start))
		}
		start = end
	}
}
