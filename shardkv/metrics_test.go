package shardkv

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalkv/shoal/shardkv/kvpb"
)

// values reads every metric of a collector, as name{labels} and number.
func values(t *testing.T, c ...prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			found[fmt.Sprintf("%s{%s}", f.GetName(), strings.Join(labels, ","))] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return found
}

// Claim: operations are counted by kind and outcome, whatever is mixed in one
// message, those included that are refused before they are looked at; and what the
// shards hold is shown as it is.
func TestMetrics(t *testing.T) {
	s, _ := newFake(t, Limits{})
	// The operations of one message may take effect in any order: the gets that are to
	// find a value come after the puts.
	executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{
		putOp("a", "12"), getOp("none"), {Key: []byte("a")}, putOp("b", "3"),
	}})
	executeNow(t, s, &kvpb.ExecuteRequest{Operations: []*kvpb.Operation{getOp("a"), getOp("b")}})
	s.refuse(&kvpb.ExecuteRequest{Operations: []*kvpb.Operation{putOp("a", "x"), getOp("a")}}, fault{kvpb.Code_BUSY, "busy"})
	s.metrics.scanned(kvpb.Code_OK)
	got := values(t, s.metrics.operation)
	for name, want := range map[string]float64{
		"OK,put": 2, "OK,get": 2, "NOT_FOUND,get": 1, "INVALID,other": 1, "BUSY,put": 1, "BUSY,get": 1, "OK,scan": 1, "OK,append": 0,
	} {
		if n, ok := got["shoal_kv_operations_total{"+name+"}"]; !ok || n != want {
			t.Errorf("%s: %v operations, want %v", name, n, want)
		}
	}
	held := values(t, &contents{s})
	if held["shoal_kv_keys{}"] != 2 || held["shoal_kv_bytes{}"] != 5 || held["shoal_kv_shards{serving}"] == 0 {
		t.Errorf("contents: %v", held)
	}
}
