package clerk_test

import (
	"net"
	"sync"
)

// freeze stops the processes of addresses, as a signal or a paused machine does:
// they accept connections and bytes, and do nothing with them, until thaw.
func (f *fakeCluster) freeze(addrs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, addr := range addrs {
		if f.frozen[addr] == nil {
			f.frozen[addr] = make(chan struct{})
		}
	}
}

// thaw lets them go on where they were.
func (f *fakeCluster) thaw(addrs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, addr := range addrs {
		if thawed := f.frozen[addr]; thawed != nil {
			close(thawed)
			delete(f.frozen, addr)
		}
	}
}

// A freezingListener accepts the connections of a server that may be frozen.
type freezingListener struct {
	net.Listener
	f    *fakeCluster
	addr string
}

func (l freezingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &freezingConn{Conn: conn, l: l, closed: make(chan struct{})}, nil
}

type freezingConn struct {
	net.Conn
	l      freezingListener
	closed chan struct{}
	once   sync.Once
}

func (c *freezingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.wait()
	return n, err
}

func (c *freezingConn) Write(b []byte) (int, error) {
	c.wait()
	return c.Conn.Write(b)
}

func (c *freezingConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// wait waits while the server is frozen.
func (c *freezingConn) wait() {
	c.l.f.mu.Lock()
	thawed := c.l.f.frozen[c.l.addr]
	c.l.f.mu.Unlock()
	if thawed == nil {
		return
	}
	select {
	case <-thawed:
	case <-c.closed:
	}
}
