package dev

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// socketPathMax is what every system takes as the path of a socket.
const socketPathMax = 100

// socketPath is where the control socket of a directory is: in it, or where its
// path is too long for a socket, under a short name elsewhere.
func socketPath(dir string) string {
	path := filepath.Join(dir, "dev.sock")
	if len(path) <= socketPathMax {
		return path
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(runtimeDir(), hex.EncodeToString(sum[:8])+".sock")
}

// runtimeDir is this user's place for pointers to clusters that run.
func runtimeDir() string {
	return filepath.Join(os.TempDir(), "shoal-dev-uid"+strconv.Itoa(os.Getuid()))
}

// pointerPath is the file that names the directory of the cluster that listens
// at an address.
func pointerPath(listen string) string {
	sum := sha256.Sum256([]byte(listen))
	return filepath.Join(runtimeDir(), hex.EncodeToString(sum[:8])+".dir")
}

// A control serves the control socket: one request and its reply on each
// connection, both one line of JSON.
type control struct {
	listener net.Listener
	pointer  string
	socket   string
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

type request struct {
	ID  string `json:"id"`
	All bool   `json:"all"`
}

type reply struct {
	Lines   []string `json:"lines"`
	Error   string   `json:"error,omitempty"`
	Unknown []string `json:"unknown,omitempty"` // ids that there are, where the one asked for is not
}

func (c *cluster) listenControl() (*control, error) {
	pointerErr := os.MkdirAll(runtimeDir(), 0o700)
	path := c.mu.layout.Socket
	// The directory is locked, so that a socket there is a dead one's.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := &control{listener: listener, pointer: pointerPath(c.mu.layout.Listen), socket: path}
	if pointerErr == nil {
		pointerErr = writeFile(s.pointer, []byte(c.dir))
	}
	if pointerErr != nil {
		fmt.Fprintf(c.o.Stderr, "shoal dev restart will need --data %s: %v\n", c.dir, pointerErr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { c.serveControl(ctx, conn) })
		}
	})
	return s, nil
}

func (s *control) close() {
	s.cancel()
	_ = s.listener.Close()
	s.wg.Wait()
	_ = os.Remove(s.pointer)
	_ = os.Remove(s.socket)
}

const (
	controlReadTimeout = 5 * time.Second
	controlTimeout     = 2 * time.Minute
)

func (c *cluster) serveControl(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(controlReadTimeout))
	var r request
	if json.NewDecoder(bufio.NewReader(conn)).Decode(&r) != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	lines, err := c.restart(ctx, r.ID, r.All)
	answer := reply{Lines: lines}
	if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
		answer.Unknown = unknown.Known
	}
	if err != nil {
		answer.Error = err.Error()
	}
	_ = json.NewEncoder(conn).Encode(answer)
}

// NotRunningError says that no cluster runs where one was asked for.
type NotRunningError struct{ Where string }

func (e *NotRunningError) Error() string { return "no shoal dev runs " + e.Where }

// Restart asks a running cluster to start a replica again, or with all every
// replica that is dead, and returns their lines. The cluster is that of the
// directory data; without one, that which listens at an address. Errors
// include *NotRunningError and *UnknownError.
func Restart(ctx context.Context, data, listen, id string, all bool) ([]string, error) {
	socket, where, err := findSocket(data, listen)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, &NotRunningError{Where: where}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(conn).Encode(request{ID: id, All: all}); err != nil {
		return nil, fmt.Errorf("ask shoal dev %s: %w", where, err)
	}
	var answer reply
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return nil, fmt.Errorf("the answer of shoal dev %s: %w", where, err)
	}
	switch {
	case answer.Unknown != nil:
		return answer.Lines, &UnknownError{ID: id, Known: answer.Unknown}
	case answer.Error != "":
		return answer.Lines, errors.New(answer.Error)
	}
	return answer.Lines, nil
}

// findSocket returns the control socket of a cluster, and how to speak of it.
func findSocket(data, listen string) (socket, where string, err error) {
	where = "in " + data
	if data == "" {
		where = "at " + listen + "; name its directory with --data, or its address with --listen"
		dir, err := os.ReadFile(pointerPath(listen))
		if err != nil {
			return "", "", &NotRunningError{Where: where}
		}
		data = string(dir)
	}
	l, err := loadLayout(data)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", &NotRunningError{Where: where}
	}
	if err != nil {
		return "", "", err
	}
	return l.Socket, where, nil
}
