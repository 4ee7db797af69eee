package formation

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// formedDir makes the data directory of a formed replica.
func formedDir(t *testing.T) (*testGroup, string, Identity) {
	g := newTestGroup(t, 7, "1")
	dir := t.TempDir()
	n := g.start(g.options("1", dir), nil)
	id := expectGroup(t, n)
	if err := n.former.MarkStarted(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.stop()
	return g, dir, id
}

// TestDamagedFile: an identity file with any byte changed, cut anywhere, or with
// anything behind it is an error, never an empty replica.
func TestDamagedFile(t *testing.T) {
	g, dir, _ := formedDir(t)
	good, err := os.ReadFile(identityPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := Open(g.options("1", dir)); err != nil || !f.Started() {
		t.Fatalf("the undamaged file: %v", err)
	}
	refuse := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(identityPath(dir), b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(g.options("1", dir))
		var damaged *DamagedError
		if !errors.As(err, &damaged) || !Refused(err) {
			t.Fatalf("%s: got %v", what, err)
		}
	}
	for i := range good {
		for _, mask := range []byte{0x01, 0x20, 0x80} {
			changed := append([]byte(nil), good...)
			changed[i] ^= mask
			refuse("a changed byte", changed)
		}
		if i < len(good)-1 {
			refuse("a cut file", good[:i])
		}
	}
	refuse("something behind", append(append([]byte(nil), good...), "{}"...))
	for what, text := range map[string]string{
		"a byte order mark":       "\uFEFF" + string(good),
		"a name in another case":  strings.Replace(string(good), `"crc32c"`, `"CRC32C"`, 1),
		"a field that is twice":   strings.Replace(string(good), `"crc32c"`, `"crc32c": "00000000", "crc32c"`, 1),
		"other white space":       strings.Replace(string(good), "\n", "\n\n", 1),
		"an escape for a letter":  strings.Replace(string(good), `"formed"`, `"\u0066ormed"`, 1) + " ",
		"carriage returns before": strings.ReplaceAll(string(good), "\n", "\r\n"),
	} {
		refuse(what, []byte(text))
	}
	zeros := make([]byte, len(good))
	refuse("zeros", zeros)
}

// TestLostFile: data without an identity is damage, and so is not an empty
// directory.
func TestLostFile(t *testing.T) {
	g := newTestGroup(t, 7, "1")
	for _, left := range []string{"raft.db", StateDir} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, left), 0o700); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		if _, err := Open(g.options("1", dir)); !errors.As(err, &damaged) {
			t.Errorf("%s without an identity: %v", left, err)
		}
	}
}

// TestWrongDirectory: the data directory of another replica is refused, and says
// what differs; what can't be an id is a mistake of usage.
func TestWrongDirectory(t *testing.T) {
	g, dir, _ := formedDir(t)
	for what, change := range map[string]func(*Options){
		"id":        func(o *Options) { o.Label, o.Peers = "2", nil },
		"gid":       func(o *Options) { o.Group = 8 },
		"log store": func(o *Options) { o.LogStore = "memory" },
	} {
		o := g.options("1", dir)
		change(&o)
		var wrong *DirectoryError
		if _, err := Open(o); !errors.As(err, &wrong) || wrong.What != what || !Refused(err) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for what, change := range map[string]func(*Options){
		"empty id":      func(o *Options) { o.Label = "" },
		"id with @":     func(o *Options) { o.Label = "a@b" },
		"id with path":  func(o *Options) { o.Label = "../x" },
		"not a peer":    func(o *Options) { o.Label = "5" },
		"two peers":     func(o *Options) { o.Peers["2"] = "h:1" },
		"same address":  func(o *Options) { o.Peers["2"], o.Peers["3"] = "h:1", "h:1" },
		"shard count":   func(o *Options) { o.Group, o.ShardCount = 0, 63 },
		"no controller": func(o *Options) { o.Cluster = nil },
		"log store":     func(o *Options) { o.LogStore = "tape" },
	} {
		o := g.options("1", t.TempDir())
		change(&o)
		var usage *UsageError
		if _, err := Open(o); !errors.As(err, &usage) || Refused(err) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// TestMixedUpPeers: an address that is answered by another replica, or by one of
// another group, is refused; peers that were started with other peers are waited
// for.
func TestMixedUpPeers(t *testing.T) {
	g := newTestGroup(t, 7, "1", "2", "3")
	other := newTestGroup(t, 8, "1", "2", "3")
	g.start(g.options("2", t.TempDir()), nil)
	third := other.start(other.options("3", t.TempDir()), nil)
	g.mu.Lock()
	g.addrs[hostName("3")] = other.addrs[hostName("3")]
	g.mu.Unlock()
	first := g.start(g.options("1", t.TempDir()), nil)
	var wrong *PeerError
	if _, err := first.wait(); !errors.As(err, &wrong) || wrong.Peer != "3" || !Refused(err) {
		t.Fatalf("a peer of another group: %v", err)
	}
	third.stop()
	first.stop()
	g.mu.Lock()
	g.addrs[hostName("3")] = g.addrs[hostName("2")]
	g.mu.Unlock()
	if _, err := g.start(g.options("1", t.TempDir()), nil).wait(); !errors.As(err, &wrong) || wrong.Peer != "3" {
		t.Fatalf("a peer with the label of another: %v", err)
	}
}

// TestServerIDs: the label can be read back from a ServerID, whatever it is.
func TestServerIDs(t *testing.T) {
	for _, label := range []string{"1", "a.b", "x-1", "n.0123"} {
		id, err := newServerID(label, zeroReader{})
		if err != nil || LabelOf(id) != label {
			t.Errorf("%q: %q, %v", label, id, err)
		}
	}
	for _, id := range []string{"", "1", "1.ff", "1.0123456789abcdef0123456789abcdeg"} {
		if label := LabelOf(id); label != "" {
			t.Errorf("%q has label %q", id, label)
		}
	}
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }
