package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every command's JSON has the fields that scripts rely on, by these names: the
// list is the contract. More fields may be added.
func TestContractFields(t *testing.T) {
	d := startDev(t, "--listen", "127.0.0.1:0", "--groups", "1", "--spare-groups", "1", "--replicas", "1", "--controller-replicas", "1", "--shards", "8")
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const measured = "ops seconds ops_per_second errors p50_us p99_us p999_us max_us"
	spare := d.addresses()["g2a"]
	waitFor(t, "the spare group's report to the controllers", func() bool { return strings.Contains(d.ok(t, "status", "-o", "json"), `"gid":2`) })
	for _, c := range []struct{ command, fields string }{
		{"put k v", "key version"},
		{"put {k}raw \xff", "key version"},
		{"get k", "key value version"},
		{"get {k}raw", "key value_base64 version"},
		{"append k w", "key version length"},
		{"scan --prefix k", "key value"},
		{"scan --prefix {k}", "key value_base64"},
		{"locate k", "slot shard epoch group leader"},
		{"import " + tree, "keys bytes seconds skipped"},
		{"export --prefix file " + filepath.Join(tree, "out"), "keys bytes seconds"},
		{"delete k", "key deleted"},
		{"config", "num shards.7 groups.1.replicas.0 groups.1.weight groups.1.state pins"},
		{"status", "config controllers.0.(id address leader healthy) groups.0.gid " +
			"groups.0.replicas.0.(id address role applied_index healthy) groups.0.(shards keys bytes) " +
			"shards.(total settled moving) handoffs availability unjoined.0.(gid replicas)"},
		{"health", "state reasons"},
		{"shards", "shard owner holder epoch generation phase keys bytes digest"},
		{"shards --group 1", "shard owner holder epoch generation phase keys bytes digest"},
		{"join 2 " + spare + " --plan", "config plan moves.0.(shard from to bytes)"},
		{"join 2 " + spare + " --wait", "config moves.0.(shard from to bytes)"},
		{"move 0 2 --wait", "config moves"},
		{"config", "groups.2.state pins.0"},
		{"unpin 0 --wait", "config moves"},
		{"rebalance pause --rate 1MiB", "state replicas.1.(gid id address paused bytes_per_second)"},
		{"rebalance resume", "state"},
		{"replicas 1", "group leader replicas.0.(id address role applied_index lag healthy health)"},
		{"replicas controller", "group leader replicas.0.(id address role applied_index lag healthy health)"},
		{"leave 2 --wait", "config moves"},
		{"bench --duration 200ms --clients 4", "reads.(" + measured + ") writes.(" + measured + ") all.(" + measured + ")"},
		{"bench clean", "deleted"},
		{"check --duration 500ms --clients 4 --keys 4", "ops unknown_outcomes linearizable duplicates lost"},
		{"version", "version commit go"},
	} {
		first, _, _ := strings.Cut(d.ok(t, append(strings.Fields(c.command), "-o", "json")...), "\n")
		var got any
		if err := json.Unmarshal([]byte(first), &got); err != nil {
			t.Errorf("%q: %v in %s", c.command, err, first)
			continue
		}
		for _, path := range fieldPaths(c.fields) {
			if !has(got, path) {
				t.Errorf("%q: no field %s in %s", c.command, path, first)
			}
		}
	}
	if left := d.ok(t, "scan", "--prefix", "check/"); left != "" {
		t.Errorf("the check left keys behind:\n%s", left)
	}
}

// fieldPaths splits a list of paths at spaces; "a.(b c)" is "a.b a.c".
func fieldPaths(list string) []string {
	var paths []string
	for list != "" {
		prefix := ""
		if open, space := strings.Index(list, "("), strings.Index(list, " "); open >= 0 && (space < 0 || open < space) {
			end := strings.Index(list, ")")
			prefix = list[:open]
			for _, name := range strings.Fields(list[open+1 : end]) {
				paths = append(paths, prefix+name)
			}
			list = strings.TrimPrefix(list[end+1:], " ")
			continue
		}
		var path string
		path, list, _ = strings.Cut(list, " ")
		paths = append(paths, path)
	}
	return paths
}

// has reports whether there is something at a path of names and list indexes.
func has(v any, path string) bool {
	for name := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				return false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(at) {
				return false
			}
			v = at[i]
		default:
			return false
		}
	}
	return v != nil
}

// Sizes are read with and without units, and written with the largest that fits.
func TestByteSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		show string
	}{
		{"0", 0, "0"}, {"1000", 1000, "1000"}, {"64MiB", 64 << 20, "64MiB"}, {"64 mib", 64 << 20, "64MiB"}, {"1.5K", 1536, "1536"},
		{"2GB", 2e9, "1953125KiB"}, {"1GiB", 1 << 30, "1GiB"}, {"5b", 5, "5"}, {"1024TiB", 1 << 50, "1024TiB"},
	} {
		var b byteSize
		if err := b.Set(c.text); err != nil || int64(b) != c.want || b.String() != c.show {
			t.Errorf("%q: %d, shown as %s, %v; want %d, shown as %s", c.text, int64(b), &b, err, c.want, c.show)
		}
	}
	for _, bad := range []string{"", "MiB", "-1", "x", "1XiB", "NaN", "Inf", "1e30"} {
		if b := byteSize(7); b.Set(bad) == nil || b != 7 {
			t.Errorf("%q was taken for %d bytes", bad, b)
		}
	}
}
