package host

import (
	"strings"
	"sync"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalkv/shoal/raftgroup/raftpb"
)

// healthEvery is how often the health service is brought up to date: a change shows
// within it. Drains and fatal errors show at once.
const healthEvery = 200 * time.Millisecond

// healthReport is what the gRPC health service says of the host's services. One that
// needs the replica is SERVING while calls to it are answered, or redirected to a
// leader that is known; else every call would be refused, and it is NOT_SERVING. So
// is the host as a whole, under the empty name.
type healthReport struct {
	done chan struct{} // closed when the goroutine that watches has ended

	mu struct {
		sync.Mutex
		services []string // those that need the replica; set by Serve
	}
}

// watchHealth keeps the health service up to date until the host drains.
func (h *Host) watchHealth() {
	var services []string
	for name := range h.grpc.GetServiceInfo() {
		switch {
		case name == raftpb.Formation_ServiceDesc.ServiceName, strings.HasPrefix(name, "grpc."):
			h.health.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING) // from the start
		default:
			services = append(services, name)
		}
	}
	h.report.mu.Lock()
	h.report.mu.services = services
	h.report.mu.Unlock()
	go func() {
		defer close(h.report.done)
		tick := time.NewTicker(healthEvery)
		defer tick.Stop()
		for {
			h.reportHealth()
			select {
			case <-h.draining:
				return
			case <-tick.C:
			}
		}
	}()
}

// reportHealth brings the health service up to date.
func (h *Host) reportHealth() {
	h.report.mu.Lock() // so that no older look overwrites a newer one
	defer h.report.mu.Unlock()
	now := healthpb.HealthCheckResponse_SERVING
	if h.unready() != "" {
		now = healthpb.HealthCheckResponse_NOT_SERVING
	}
	h.health.SetServingStatus("", now)
	for _, name := range h.report.mu.services {
		h.health.SetServingStatus(name, now)
	}
}
