package host

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A webServer serves metrics, probes and profiles.
type webServer struct {
	listener net.Listener
	server   *http.Server
	done     chan struct{}
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func startWeb(h *Host, address string, insecure bool) (*webServer, error) {
	if err := checkListen(address, insecure); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &ListenError{Address: address, Err: err}
	}
	routes := http.NewServeMux()
	routes.Handle("GET /metrics", promhttp.HandlerFor(h.registry, promhttp.HandlerOpts{}))
	routes.HandleFunc("GET /live", h.serveLive)
	routes.HandleFunc("GET /ready", h.serveReady)
	routes.HandleFunc("/debug/pprof/", pprof.Index)
	routes.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	routes.HandleFunc("/debug/pprof/profile", pprof.Profile)
	routes.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	routes.HandleFunc("/debug/pprof/trace", pprof.Trace)
	w := &webServer{listener: listener, done: make(chan struct{})}
	w.server = &http.Server{
		Handler:           routes,
		ReadHeaderTimeout: h.opts.SniffTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    headerBytesMax,
		ConnState:         (&webConns{}).changed,
		ErrorLog:          h.log.Named("http").StandardLogger(nil),
	}
	go func() {
		defer close(w.done)
		if err := w.server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("HTTP server ended", "address", address, "error", err)
		}
	}()
	return w, nil
}

// webConns keeps no more than webConnectionsMax connections to the web server open.
// Who comes when there are as many puts out the one that has asked for nothing for
// longest: connections that are held open, whatever for, must not keep a probe from
// being answered, or a replica that is well is restarted.
type webConns struct {
	mu struct {
		sync.Mutex
		order list.List // of net.Conn, by when they came or asked last
		at    map[net.Conn]*list.Element
	}
}

// changed is the server's ConnState.
func (w *webConns) changed(conn net.Conn, state http.ConnState) {
	if out := w.note(conn, state); out != nil {
		out.Close() // its request, if it has one, is cancelled
	}
}

// note takes in what became of a connection, and returns the one that is put out.
func (w *webConns) note(conn net.Conn, state http.ConnState) (out net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.mu.at[conn]
	switch {
	case state == http.StateNew:
		if w.mu.at == nil {
			w.mu.at = make(map[net.Conn]*list.Element)
		}
		w.mu.at[conn] = w.mu.order.PushBack(conn)
		if len(w.mu.at) > webConnectionsMax {
			out = w.mu.order.Remove(w.mu.order.Front()).(net.Conn)
			delete(w.mu.at, out)
		}
	case known == nil: // it was put out
	case state == http.StateActive:
		w.mu.order.MoveToBack(known)
	case state == http.StateClosed, state == http.StateHijacked:
		w.mu.order.Remove(known)
		delete(w.mu.at, conn)
	}
	return out
}

// close lets requests in flight finish until ctx ends.
func (w *webServer) close(ctx context.Context) error {
	err := w.server.Shutdown(ctx)
	if err != nil {
		err = w.server.Close()
	}
	<-w.done
	return err
}

// HTTPAddr is where metrics and probes are served; empty without Options.HTTP.
func (h *Host) HTTPAddr() string {
	if h.web == nil {
		return ""
	}
	return h.web.listener.Addr().String()
}

// serveLive answers 200 unless the process can't go on.
func (h *Host) serveLive(w http.ResponseWriter, _ *http.Request) {
	if err := h.Fatal(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "live")
}

// serveReady answers 200 once the replica is formed, runs, and knows a leader, as
// long as there is room for clients.
func (h *Host) serveReady(w http.ResponseWriter, _ *http.Request) {
	if problem := h.unready(); problem != "" {
		http.Error(w, problem, http.StatusServiceUnavailable)
		return
	}
	a := h.mux.admission
	open, limit := a.open(connClient), a.limits.clients
	if open >= limit {
		http.Error(w, fmt.Sprintf("clients have taken all %d connections that they may have", limit), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintf(w, "ready\nclients: %d of %d connections\n", open, limit)
}

func (h *Host) unready() string {
	if err := h.Fatal(); err != nil {
		return err.Error()
	}
	select {
	case <-h.draining:
		return "shutting down"
	default:
	}
	if _, formed := h.Identity(); !formed {
		return "not formed yet"
	}
	r := h.running()
	if r == nil {
		return "starting"
	}
	if r.removal.removed.Load() {
		return "removed from its group"
	}
	if leader, _ := r.replica.Leader(); leader == "" {
		return "no leader is known"
	}
	return ""
}
