package formation

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/shoalkv/shoal/raftgroup/logstore"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Options say who a replica wants to be. They are complete when Open is called.
type Options struct {
	// Dir is the data directory, which exists. The caller holds its lock.
	Dir string
	// Group is the gid, 0 for the controllers; Label the replica's --id.
	Group shardcfg.GroupID
	Label string
	// Peers are the addresses (host:port) of the group's replicas by their
	// labels, this one included. Empty: wait to be added to a formed group.
	Peers map[string]string
	// Advertise is this replica's address as others reach it. Empty: its entry
	// of Peers, which it must not contradict.
	Advertise string
	// ShardCount is what controllers found their cluster with. Groups learn it.
	ShardCount int
	// LogStore is the kind of log store that the group is formed with; empty
	// means the default. A formed replica that is started with another kind is
	// refused.
	LogStore string
	// Dial returns a connection to a peer, which the caller owns.
	Dial func(addr string) (grpc.ClientConnInterface, error)
	// Cluster asks the controllers which cluster this is and how many shards it
	// has. Only the proposer of a group calls it, until it succeeds. Not used by
	// controllers.
	Cluster func(context.Context) (shardcfg.ClusterID, int, error)
	// Version is what Hello says.
	Version string
	// Rand is where names are drawn from; nil means crypto/rand.
	Rand io.Reader
	// Logger may be nil: silence.
	Logger hclog.Logger
	// Interval is the pause between two rounds of asking; 0 means 200 ms.
	Interval time.Duration

	// hook is called before and after each durable step; an error is a crash
	// there. Tests set it.
	hook func(step) error
}

const (
	intervalDefault = 200 * time.Millisecond
	// callTimeout bounds one call to a peer.
	callTimeout = 2 * time.Second
	// reportEvery is how often a wait is logged.
	reportEvery = 5 * time.Second

	peersMax      = 7
	labelBytesMax = 64
)

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)

// complete checks the options and fills in the defaults. Errors are *UsageError.
func (o Options) complete() (Options, error) {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	o.Interval = cmp.Or(o.Interval, intervalDefault)
	if o.hook == nil {
		o.hook = func(step) error { return nil }
	}
	usage := func(format string, args ...any) (Options, error) {
		return Options{}, &UsageError{Problem: fmt.Sprintf(format, args...)}
	}
	if len(o.Label) > labelBytesMax || !labelPattern.MatchString(o.Label) {
		return usage("id %q is not of letters, digits, '.', '_' and '-', at most %d of them, beginning and ending with a letter or digit", o.Label, labelBytesMax)
	}
	if o.LogStore != "" && !logstore.Known(o.LogStore) {
		return usage("log store %q is not known", o.LogStore)
	}
	if len(o.Peers) == 0 {
		return o, nil
	}
	own, ok := o.Peers[o.Label]
	if !ok {
		return usage("peers (%s) do not list this replica, %q", strings.Join(o.peerLabels(), ", "), o.Label)
	}
	if len(o.Peers) > peersMax || len(o.Peers)%2 == 0 {
		return usage("a group has 1, 3, 5 or 7 replicas, not %d", len(o.Peers))
	}
	seen := map[string]string{}
	for _, label := range o.peerLabels() {
		address := o.Peers[label]
		if len(label) > labelBytesMax || !labelPattern.MatchString(label) {
			return usage("peer %q=%q is not ID=ADDR", label, address)
		}
		if err := CheckAddress(address); err != nil {
			return usage("peer %q: %v", label, err)
		}
		if other, twice := seen[address]; twice {
			return usage("peers %q and %q have the same address %s", other, label, address)
		}
		seen[address] = label
	}
	if o.Advertise == "" {
		o.Advertise = own
	}
	if o.Advertise != own {
		return usage("this replica is at %s, its peers have %q at %s: they must be the same", o.Advertise, o.Label, own)
	}
	if o.Group == 0 {
		if err := shardcfg.CheckShardCount(o.ShardCount); err != nil {
			return usage("%d shards: %v", o.ShardCount, err)
		}
	} else if o.Cluster == nil {
		return usage("a group needs to know its controllers")
	}
	return o, nil
}

// peerLabels are the labels of all replicas, ascending.
func (o *Options) peerLabels() []string {
	labels := make([]string, 0, len(o.Peers))
	for label := range o.Peers {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	return labels
}

// logStore is the kind to form a group with.
func (o *Options) logStore() string {
	if o.LogStore == "" {
		return logstore.KindDefault
	}
	return o.LogStore
}
