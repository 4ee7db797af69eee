package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// http1Methods begin the request line of an HTTP/1 client: a browser, or curl,
// that somebody points at the port.
var http1Methods = []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "}

const (
	// http1HeadMax bounds the head of a request that is read before the answer.
	http1HeadMax = 8 << 10
	// http1BodyMax and http1Drain bound what is read behind it: a connection that
	// is closed over unread bytes is reset, and the client never sees the answer.
	http1BodyMax = 1 << 20
	http1Drain   = 200 * time.Millisecond
)

const http1Text = "This port speaks gRPC (HTTP/2 without TLS) with clients of Shoal, and Raft with its replicas; it does not speak HTTP/1.\n" +
	"Use the command shoal, the Go library, or a gRPC client of the service shoal.kv.v1.KV.\n" +
	"Metrics and probes are served at the address that --http gives, if it is given.\n"

// serveHTTP1 tells a client that it is wrong here, and closes the connection. What
// it asked for plays no part. The deadline of the sniffing bounds it.
func (m *mux) serveHTTP1(_ *trackedConn, conn net.Conn) error {
	head, err := readHead(conn)
	if err != nil {
		return err
	}
	body := http1Text
	if bytes.HasPrefix(head, []byte("HEAD ")) {
		body = ""
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(http1Text), body)
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(http1Drain)); err == nil {
		_, _ = io.CopyN(io.Discard, conn, http1BodyMax) // nobody depends on it
	}
	return conn.Close()
}

// readHead reads the head of a request, up to the empty line.
func readHead(conn net.Conn) ([]byte, error) {
	r := bufio.NewReader(io.LimitReader(conn, http1HeadMax))
	var head []byte
	for {
		line, err := r.ReadBytes('\n')
		head = append(head, line...)
		switch {
		case errors.Is(err, io.EOF) && len(head) >= http1HeadMax:
			return head, nil // it has told enough
		case err != nil:
			return nil, err
		case len(bytes.TrimRight(line, "\r\n")) == 0:
			return head, nil
		}
	}
}
