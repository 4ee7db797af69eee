package host

import (
	"context"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

// healthOf is what a host's health service says of a service; 0: it does not answer.
func healthOf(t *testing.T, via, of *testHost, service string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	conn, err := via.Dial(of.Addr())
	if err != nil {
		t.Fatal(err)
	}
	r, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		return 0
	}
	return r.GetStatus()
}

// Claim: the health service says of each service whether calls to it can be served:
// not before the replica is formed, then while a leader is known, and not any more
// once nobody can lead; who the replica is can be asked throughout.
func TestHealth(t *testing.T) {
	const serving, not = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	formation, membership := raftpb.Formation_ServiceDesc.ServiceName, raftpb.Membership_ServiceDesc.ServiceName
	is := func(via, of *testHost, replica healthpb.HealthCheckResponse_ServingStatus) func() bool {
		return func() bool {
			return healthOf(t, via, of, "") == replica && healthOf(t, via, of, membership) == replica && healthOf(t, via, of, formation) == serving
		}
	}
	lone := newTestHost(t, "9", t.TempDir(), "127.0.0.1:0", nil)
	eventually(t, "a host without a replica does not serve", is(lone, lone, not))

	hosts, _, _ := startGroup(t)
	propose(t, "a", hosts...)
	for _, h := range hosts {
		eventually(t, "a replica of a group with a leader serves", is(lone, h, serving))
	}
	hosts[1].close()
	hosts[2].close()
	eventually(t, "a replica that is left alone does not serve", is(lone, hosts[0], not))
}
