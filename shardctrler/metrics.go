package shardctrler

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// counters count since the server was made.
type counters struct {
	polls    atomic.Uint64 // reports of groups
	changes  atomic.Uint64 // admin requests that went to the log
	refusals atomic.Uint64 // requests and polls that were refused
	repairs  atomic.Uint64 // requests to repair shards, for which all groups answered
}

var (
	descConfig   = prometheus.NewDesc("shoal_controller_config", "Number of the latest configuration that this replica applied.", nil, nil)
	descShards   = prometheus.NewDesc("shoal_controller_shards", "Shards that a group should hold.", []string{"group", "state"}, nil)
	descWatches  = prometheus.NewDesc("shoal_controller_watches", "Open watches.", nil, nil)
	descPolls    = prometheus.NewDesc("shoal_controller_polls_total", "Reports of groups.", nil, nil)
	descChanges  = prometheus.NewDesc("shoal_controller_changes_total", "Admin requests that went to the log.", nil, nil)
	descRepairs  = prometheus.NewDesc("shoal_controller_repairs_total", "Requests to repair shards for which all groups answered.", nil, nil)
	descRefusals = prometheus.NewDesc("shoal_controller_refusals_total", "Requests and reports that were refused.", nil, nil)
)

// collector shows a server's figures.
type collector struct{ s *Server }

// Describe names the figures.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descConfig, descShards, descWatches, descPolls, descChanges, descRefusals, descRepairs} {
		ch <- d
	}
}

// Collect reads the figures.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n *atomic.Uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()))
	}
	count(descPolls, &c.s.counts.polls)
	count(descChanges, &c.s.counts.changes)
	count(descRefusals, &c.s.counts.refusals)
	count(descRepairs, &c.s.counts.repairs)
	ch <- prometheus.MustNewConstMetric(descWatches, prometheus.GaugeValue, float64(c.s.watchers.Load()))
	r, err := c.s.ready(nil)
	if err != nil {
		return
	}
	err = c.s.read(r, func(rd *reading) error {
		ch <- prometheus.MustNewConstMetric(descConfig, prometheus.GaugeValue, float64(rd.latest.Num))
		shards := map[shardcfg.GroupID]int{}
		for _, gid := range rd.latest.Shards {
			shards[gid]++
		}
		for _, gid := range rd.latest.GroupIDs() {
			ch <- prometheus.MustNewConstMetric(descShards, prometheus.GaugeValue, float64(shards[gid]),
				strconv.FormatUint(uint64(gid), 10), rd.latest.Groups[gid].State.String())
		}
		return nil
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descConfig, err)
	}
}
