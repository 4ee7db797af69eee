package host

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestHeldWebConnectionsTakeNoProbe: connections to the web server that are held open
// keep no probe from being answered, whether nothing is asked on them, or a body that
// is announced never comes, or a profile takes days.
func TestHeldWebConnectionsTakeNoProbe(t *testing.T) {
	for name, request := range map[string]string{
		"silent":       "",
		"half a head":  "GET /live HTTP/1.1\r\n",
		"unsent body":  "GET /live HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"kept alive":   "GET /live HTTP/1.1\r\nHost: x\r\n\r\n",
		"long profile": "GET /debug/pprof/heap?seconds=1000000 HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := newTestHost(t, "1", t.TempDir(), "127.0.0.1:0", func(o *Options) {
				o.HTTP = "127.0.0.1:0"
				o.SniffTimeout = time.Hour // nothing of this ends by itself
			})
			held := make([]net.Conn, webConnectionsMax)
			for i := range held {
				held[i] = dialRaw(t, h.HTTPAddr())
				if _, err := io.WriteString(held[i], request); err != nil {
					t.Fatal(err)
				}
			}
			client := http.Client{Timeout: 10 * time.Second}
			reply, err := client.Get("http://" + h.HTTPAddr() + "/live")
			if err != nil {
				t.Fatalf("a probe beside %d connections: %v", len(held), err)
			}
			defer reply.Body.Close()
			if reply.StatusCode != http.StatusOK {
				t.Fatalf("live: %s", reply.Status)
			}
			// The bound holds, too: for the probe, which keeps its connection, one was put out.
			out := make(chan struct{}, len(held))
			for _, conn := range held {
				go func() {
					_, _ = io.Copy(io.Discard, conn)
					out <- struct{}{}
				}()
			}
			<-out
		})
	}
}
