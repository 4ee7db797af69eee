package host

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// limits say how many files a process may have open, and who may have how many of
// them. A replica that runs out of them can't open a file of its store, and must
// stop; one whose connections are all taken by clients hears nothing of its group.
type limits struct {
	files int // that the process may open
	// stores is what a store may keep open of its tables.
	stores int
	// outgoing bounds the connections to other hosts.
	outgoing int
	// connections bounds those that were accepted, in three classes: clients, whose
	// class gRPC is; peers, which are Raft streams; and those that have not said yet
	// what they are. No class can take what is another's.
	connections, clients, peers, unidentified int
	// silentFor is for how long a connection has said nothing that may be put out for
	// another one, hearFor for how long it is waited for if it has spoken.
	silentFor, hearFor time.Duration
	// perSource bounds the clients from one address, as long as that is not this
	// machine's.
	perSource int
}

const (
	// filesOfItsOwn is what a replica needs beside tables and connections: its log,
	// manifest and write-ahead logs, listeners, and a profile now and then.
	filesOfItsOwn = 64
	tablesMax     = 500
	// connectionsMaxDefault bounds the memory that connections need, where files do
	// not.
	connectionsMaxDefault = 4096
	connectionsMin        = 32
	// peersMax is enough for six peers, of which each opens up to four streams, and for
	// those that they had when their machines lost power: the system closes these only
	// after minutes. Where connections are few, peers have half of them.
	peersMax        = 64
	unidentifiedMax = 256
	// acceptPause bounds the pause before a connection is accepted, on average, however
	// many strangers come and say nothing.
	acceptPause = 200 * time.Microsecond
	// webConnectionsMax bounds the connections to metrics and probes.
	webConnectionsMax = 32
)

// deriveLimits shares out the files that the process may open. connections, if it
// is not 0, is the bound that was asked for; the files may lower it.
func deriveLimits(files, connections int) (limits, error) {
	l := limits{files: files, stores: min(tablesMax, files/4), outgoing: min(poolMax, files/8)}
	if connections == 0 {
		connections = connectionsMaxDefault
	}
	l.connections = min(connections, files-l.stores-l.outgoing-filesOfItsOwn-webConnectionsMax)
	if l.connections < min(connections, connectionsMin) {
		return l, fmt.Errorf("this process may open %d files, which is too few for a replica: raise the limit (ulimit -n, LimitNOFILE) to 1024 at least", files)
	}
	l.peers = min(peersMax, max(1, l.connections/2))
	l.unidentified = min(unidentifiedMax, max(1, l.connections/8))
	l.silentFor = time.Duration(l.unidentified) * acceptPause
	l.hearFor = 2 * l.silentFor
	l.clients = max(1, l.connections-l.peers-l.unidentified)
	l.perSource = max(1, l.clients*3/4)
	return l, nil
}

// openFilesMax is how many files the process may open.
func openFilesMax() (int, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("read how many files may be open: %w", err)
	}
	return int(min(r.Cur, 1<<30)), nil
}

// sourceOf is where a connection comes from; the zero address for this machine.
func sourceOf(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(tcp.IP)
	return addr.Unmap()
}
