package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A Layout is the shape of a dev cluster, kept in dev.json for as long as its
// data.
type Layout struct {
	Format int `json:"format"` // 1
	// Listen and Shards are as the cluster was created with.
	Listen string `json:"listen"`
	Shards int    `json:"shards"`
	// Joined: the groups that are no spares were joined, once.
	Joined      bool       `json:"joined"`
	Controllers []*Replica `json:"controllers"`
	Groups      []*Group   `json:"groups"`

	// Of the process that runs the cluster; PIDs are 0 when there is none.
	PID    int    `json:"pid"`
	Socket string `json:"socket"`
}

// A Group is a replica group of a dev cluster.
type Group struct {
	GID      shardcfg.GroupID `json:"gid"`
	Spare    bool             `json:"spare"` // not joined at start
	Replicas []*Replica       `json:"replicas"`
}

// A Replica is one replica of a dev cluster; its id is unique in the cluster.
type Replica struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	HTTP    string `json:"http,omitempty"` // of metrics and probes; empty: none
	PID     int    `json:"pid,omitempty"`  // 0: it is dead, or in the process of dev itself
}

const layoutFormat = 1

// A Spec is all that starts one replica.
type Spec struct {
	Group       shardcfg.GroupID // 0: the controllers
	ID          string
	Address     string
	HTTP        string // empty: no metrics and probes
	DataDir     string
	LogFile     string
	Peers       map[string]string // id to address, this one included
	Controllers []string
	Shards      int // of controllers
}

// newLayout numbers the replicas: controllers c1, c2, ..., those of group 1
// g1a, g1b, ...
func newLayout(o Options) (*Layout, error) {
	host, port, err := splitListen("listen", o.Listen)
	if err != nil {
		return nil, err
	}
	total := o.ControllerReplicas + (o.Groups+o.SpareGroups)*o.Replicas
	if port != 0 && port+total-1 > 65535 {
		return nil, usagef("--listen is %s: %d replicas need ports up to %d, and there are 65535", o.Listen, total, port+total-1)
	}
	l := &Layout{Format: layoutFormat, Listen: o.Listen, Shards: o.Shards}
	add := func(list []*Replica, id string) []*Replica {
		address := net.JoinHostPort(host, strconv.Itoa(port))
		if port != 0 {
			port++
		}
		return append(list, &Replica{ID: id, Address: address})
	}
	for i := range o.ControllerReplicas {
		l.Controllers = add(l.Controllers, fmt.Sprintf("c%d", i+1))
	}
	for i := range o.Groups + o.SpareGroups {
		g := &Group{GID: shardcfg.GroupID(i + 1), Spare: i >= o.Groups}
		for j := range o.Replicas {
			g.Replicas = add(g.Replicas, fmt.Sprintf("g%d%c", g.GID, 'a'+j))
		}
		l.Groups = append(l.Groups, g)
	}
	if port == 0 {
		return l, l.choosePorts(host)
	}
	return l, nil
}

func splitListen(flag, listen string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, usagef("--%s is %q: it is HOST:PORT", flag, listen)
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, usagef("--%s is %q: the port is 0 to 65535", flag, listen)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, usagef("--%s is %q: a dev cluster listens on loopback only", flag, listen)
	}
	return host, port, nil
}

// serveHTTP gives every replica an address for metrics and probes, from listen on;
// empty: none.
func (l *Layout) serveHTTP(listen string) error {
	for r := range l.all() {
		r.HTTP = ""
	}
	if listen == "" {
		return nil
	}
	host, port, err := splitListen("http", listen)
	if err != nil {
		return err
	}
	if last := port + len(l.ids()) - 1; port != 0 && last > 65535 {
		return usagef("--http is %s: %d replicas need ports up to %d, and there are 65535", listen, len(l.ids()), last)
	}
	taken := map[string]bool{}
	for r := range l.all() {
		taken[r.Address] = true
	}
	for r := range l.all() {
		for r.HTTP == "" || taken[r.HTTP] {
			address := net.JoinHostPort(host, strconv.Itoa(port))
			if taken[address] {
				return usagef("--http is %s: a replica needs %s; choose other ports", listen, address)
			}
			listener, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("--http: %w", err)
			}
			// Held until all are chosen, so that no port is chosen twice.
			defer listener.Close()
			r.HTTP = listener.Addr().String()
		}
		if port != 0 {
			port++
		}
	}
	return nil
}

// choosePorts gives every replica a port that is free now.
func (l *Layout) choosePorts(host string) error {
	for r := range l.all() {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return err
		}
		// Held until all are chosen, so that no port is chosen twice.
		defer listener.Close()
		r.Address = listener.Addr().String()
	}
	return nil
}

// checkPorts names the first address that another process listens at.
func (l *Layout) checkPorts() error {
	for r := range l.all() {
		listener, err := net.Listen("tcp", r.Address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%s, which replica %s needs, is in use by another process; choose other ports with --listen", r.Address, r.ID)
		}
		if err != nil {
			return fmt.Errorf("replica %s: %w", r.ID, err)
		}
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}

// agrees returns how flags that were given contradict the layout.
func (l *Layout) agrees(o Options) error {
	joined, spare := 0, 0
	for _, g := range l.Groups {
		if g.Spare {
			spare++
		} else {
			joined++
		}
	}
	for _, f := range []struct {
		name       string
		have, want any
	}{
		{"groups", joined, o.Groups},
		{"spare-groups", spare, o.SpareGroups},
		{"replicas", len(l.Groups[0].Replicas), o.Replicas},
		{"controller-replicas", len(l.Controllers), o.ControllerReplicas},
		{"shards", l.Shards, o.Shards},
		{"listen", l.Listen, o.Listen},
	} {
		if o.Given[f.name] && f.have != f.want {
			return usagef("%s has a cluster already, with --%s %v: leave the flag out, or give another --data", o.Data, f.name, f.have)
		}
	}
	return nil
}

// all yields every replica, the controllers first.
func (l *Layout) all() iter.Seq[*Replica] {
	return func(yield func(*Replica) bool) {
		for _, r := range l.Controllers {
			if !yield(r) {
				return
			}
		}
		for _, g := range l.Groups {
			for _, r := range g.Replicas {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// specs says how to start every replica, the controllers first.
func (l *Layout) specs(dir string) []Spec {
	var specs []Spec
	add := func(gid shardcfg.GroupID, list []*Replica) {
		peers := map[string]string{}
		for _, r := range list {
			peers[r.ID] = r.Address
		}
		for _, r := range list {
			specs = append(specs, Spec{
				Group: gid, ID: r.ID, Address: r.Address, HTTP: r.HTTP, Peers: peers, Controllers: addresses(l.Controllers), Shards: l.Shards,
				DataDir: filepath.Join(dir, r.ID), LogFile: filepath.Join(dir, "logs", r.ID+".log"),
			})
		}
	}
	add(0, l.Controllers)
	for _, g := range l.Groups {
		add(g.GID, g.Replicas)
	}
	return specs
}

func (l *Layout) find(id string) *Replica {
	for r := range l.all() {
		if r.ID == id {
			return r
		}
	}
	panic("dev: the layout has no replica " + id)
}

func (l *Layout) ids() []string {
	var ids []string
	for r := range l.all() {
		ids = append(ids, r.ID)
	}
	return ids
}

// line is the line that announces a replica.
func (l *Layout) line(id string) string {
	r := l.find(id)
	of := "controller"
	for _, g := range l.Groups {
		for _, member := range g.Replicas {
			if member == r {
				of = strconv.FormatUint(uint64(g.GID), 10)
			}
		}
	}
	line := fmt.Sprintf("replica %s %s %s", of, r.ID, r.Address)
	if r.PID != 0 {
		line += " " + strconv.Itoa(r.PID)
	}
	return line
}

func addresses(list []*Replica) []string {
	var out []string
	for _, r := range list {
		out = append(out, r.Address)
	}
	return out
}

const layoutFile = "dev.json"

// loadLayout reads the layout of a directory; os.ErrNotExist: it has none.
func loadLayout(dir string) (*Layout, error) {
	path := filepath.Join(dir, layoutFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l := &Layout{}
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if l.Format != layoutFormat || len(l.Controllers) == 0 || len(l.Groups) == 0 {
		return nil, fmt.Errorf("%s: not a layout of format %d", path, layoutFormat)
	}
	return l, nil
}

// save replaces the layout of a directory.
func (l *Layout) save(dir string) error {
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, layoutFile), append(text, '\n'))
}

// writeFile replaces a file by rename, so that no one reads half of it.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func joinAddresses(list []*Replica) string { return strings.Join(addresses(list), ",") }
