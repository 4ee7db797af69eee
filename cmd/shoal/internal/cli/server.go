package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalkv/shoal/cmd/shoal/internal/replica"
	"github.com/shoalkv/shoal/raftgroup/formation"
	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// drainMax bounds how long a replica may take to finish requests in flight.
const drainMax = 10 * time.Second

func (a *app) controllerCommand() *cobra.Command {
	o, m := replica.Options{}, limits{cache: controllerCache, memtable: controllerMemtable, logMax: logMax}
	cmd := &cobra.Command{
		Use:   "controller --id ID --listen ADDR --data DIR --peers ID=ADDR,...",
		Short: "Run one controller replica",
		Long: `Runs one replica of the shard controller. The first time, all --peers must be up:
together they form the cluster, with --shards shards for good. Later each starts
for itself, with the data that it has.

Without --peers an empty replica waits until "shoal replicas controller add" or
"replace" names it. An empty data directory under the peers of a formed group is
refused with exit code 5, and the command that replaces a replica.

SIGTERM drains: leadership moves away, requests in flight finish, exit code 0. A
second signal ends it at once.`,
		Example: "  shoal controller --id c1 --listen 127.0.0.1:7400 --data /var/lib/shoal/c1 \\\n" +
			"    --peers c1=127.0.0.1:7400,c2=127.0.0.1:7401,c3=127.0.0.1:7402",
		Args:        arguments(0, 0),
		Annotations: map[string]string{annotationServer: annotationReplica},
	}
	replicaFlags(cmd.Flags(), &o)
	m.flags(cmd.Flags())
	cmd.Flags().IntVar(&o.Shards, "shards", shardcfg.ShardCountDefault, "number of shards of a new cluster: a power of two, 1 to 16384; fixed for good")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.runReplica(cmd.Context(), o, m) }
	return cmd
}

func (a *app) serverCommand() *cobra.Command {
	o, m := replica.Options{}, limits{cache: serverCache, memtable: serverMemtable, logMax: logMax}
	var group uint64
	cmd := &cobra.Command{
		Use:   "server --group GID --id ID --listen ADDR --data DIR --peers ID=ADDR,...",
		Short: "Run one replica of a group",
		Long: `Runs one replica of a replica group. The first time, all --peers must be up, and
the controllers: together they form the group. It takes shards once "shoal join"
has made it a member. Later each replica starts for itself, with the data that it
has.

Without --peers an empty replica waits until "shoal replicas GID add" or
"replace" names it. An empty data directory under the peers of a formed group is
refused with exit code 5, and the command that replaces a replica.

SIGTERM drains: leadership moves away, requests in flight finish, exit code 0. A
second signal ends it at once.`,
		Example: "  shoal server --group 1 --id a --listen 127.0.0.1:7410 \\\n" +
			"    --data /var/lib/shoal/a --controllers 127.0.0.1:7400 \\\n" +
			"    --peers a=127.0.0.1:7410,b=127.0.0.1:7411,c=127.0.0.1:7412",
		Args:        arguments(0, 0),
		Annotations: map[string]string{annotationServer: annotationReplica},
	}
	replicaFlags(cmd.Flags(), &o)
	m.flags(cmd.Flags())
	cmd.Flags().Uint64Var(&group, "group", 0, "the group's `gid`, from 1 on")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if group == 0 {
			return usagef("--group is needed: the group's gid, from 1 on")
		}
		o.Group, o.Controllers = shardcfg.GroupID(group), a.controllers
		return a.runReplica(cmd.Context(), o, m)
	}
	return cmd
}

// What a replica may use of the machine's memory, by default: a controller holds
// little, a server's reads are only fast from memory.
const (
	serverCache        = 256 << 20
	serverMemtable     = 16 << 20
	controllerCache    = 8 << 20
	controllerMemtable = 1 << 20
)

// logMax is how much log a replica keeps for others, by default.
const logMax = 1 << 30

// limits are what a replica may use of memory and disk.
type limits struct{ cache, memtable, logMax byteSize }

func (m *limits) flags(f *pflag.FlagSet) {
	f.Var(&m.cache, "cache", "memory for blocks that were read, in `bytes`: 268435456, 256MiB")
	f.Var(&m.memtable, "memtable", "memory for writes before they go to a table file, in `bytes`, up to three times: 16MiB")
	f.Var(&m.logMax, "log-max", "disk for the log that spares replicas a copy, in `bytes`: those that were away get up to half of it")
}

// check refuses sizes that a replica could not work with.
func (m *limits) check() error {
	const memtableMin, memtableMax, logMaxMin = 256 << 10, 1 << 30, 32 << 20
	if m.memtable < memtableMin || m.memtable > memtableMax {
		return usagef("--memtable is %s: it is 256KiB to 1GiB", &m.memtable)
	}
	if m.logMax < logMaxMin {
		return usagef("--log-max is %s: it is 32MiB at least", &m.logMax)
	}
	return nil
}

func replicaFlags(f *pflag.FlagSet, o *replica.Options) {
	f.StringVar(&o.ID, "id", "", "the replica's `label`, unique in its group")
	f.StringVar(&o.Listen, "listen", "", "`HOST:PORT` to listen at")
	f.StringVar(&o.Advertise, "advertise", "", "`HOST:PORT` at which others reach it (default: its entry in --peers, else where it listens)")
	f.StringVar(&o.Data, "data", "", "data `directory`, made if need be")
	f.Var(&peerList{addresses: &o.Peers}, "peers", "all replicas of the group, this one included: `ID=ADDR,...`")
	f.StringVar(&o.HTTP, "http", "", "`HOST:PORT` for /metrics, /live, /ready and /debug/pprof; off unless given")
	f.BoolVar(&o.Insecure, "insecure", false, "permit to listen off loopback without TLS")
	f.StringVar(&o.LogStore, "log-store", "", "`kind` of the log store of a new replica (default bolt)")
}

// runReplica runs one replica until ctx ends or it fails.
func (a *app) runReplica(ctx context.Context, o replica.Options, m limits) error {
	if err := m.check(); err != nil {
		return err
	}
	o.Store.CacheBytes, o.Store.MemTableBytes = max(1, int64(m.cache)), int(m.memtable)
	o.LogBytesMax = int64(m.logMax)
	for _, f := range []struct{ name, value string }{{"id", o.ID}, {"listen", o.Listen}, {"data", o.Data}} {
		if f.value == "" {
			return usagef("--%s is needed", f.name)
		}
	}
	if err := checkReplicaAddresses(o); err != nil {
		return usageError{err}
	}
	if o.Group == 0 {
		if err := shardcfg.CheckShardCount(o.Shards); err != nil {
			return usagef("--shards is %d: %w", o.Shards, err)
		}
	}
	o.Version, _ = Version()
	o.Logger = replica.NewLogger(a.env.Stderr, a.serverLogLevel(), a.logFormat == "json")
	r, err := replica.Start(o)
	if err != nil {
		return replicaFailure(err)
	}
	o.Logger.Info("listening", "id", o.ID, "group", groupName(o.Group), "address", r.Addr(), "http", r.HTTPAddr())
	select {
	case <-ctx.Done():
		o.Logger.Info("draining")
	case <-r.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainMax)
	defer cancel()
	failure := r.Err()
	if failure != nil {
		// A replica that failed may not be able to close; the process ends anyway.
		return replicaFailure(failure)
	}
	return errors.Join(r.Close(drain), replicaFailure(r.Err()))
}

// checkReplicaAddresses refuses what can't be an address, before anything is
// written to the data directory.
func checkReplicaAddresses(o replica.Options) error {
	for _, f := range []struct{ name, address string }{{"listen", o.Listen}, {"http", o.HTTP}} {
		if f.address == "" {
			continue
		}
		if _, port, err := net.SplitHostPort(f.address); err != nil || !isPort(port) {
			return fmt.Errorf("--%s: %q is no address: it is HOST:PORT", f.name, f.address)
		}
	}
	own := o.Peers[o.ID]
	if o.Advertise != "" {
		if err := formation.CheckAddress(o.Advertise); err != nil {
			return fmt.Errorf("--advertise: %w", err)
		}
		if own != "" && own != o.Advertise {
			return fmt.Errorf("--advertise says that this replica is at %s, --peers that %q is at %s: they must be the same", o.Advertise, o.ID, own)
		}
	}
	seen := map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(o.Peers)) {
		address := o.Peers[id]
		if err := formation.CheckAddress(address); err != nil {
			return fmt.Errorf("--peers: %q: %w", id, err)
		}
		if other, twice := seen[address]; twice {
			return fmt.Errorf("--peers: %s is the address of both %q and %q", address, other, id)
		}
		seen[address] = id
	}
	return nil
}

// isPort reports whether a port is a number; 0 lets the system choose one.
func isPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}

// serverLogLevel is the least level of what a server logs.
func (a *app) serverLogLevel() slog.Level {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if a.log.Enabled(context.Background(), level) {
			return level
		}
	}
	return slog.LevelError
}

// replicaFailure gives a replica's end its exit code.
func replicaFailure(err error) error {
	switch {
	case err == nil:
		return nil
	case replica.Refused(err):
		return codedError{err, ExitRefused}
	case replica.Usage(err):
		return usageError{err}
	}
	return codedError{fmt.Errorf("this replica can't go on: %w", err), ExitFailed}
}
