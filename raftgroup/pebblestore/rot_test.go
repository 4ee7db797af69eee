package pebblestore

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/shoalkv/shoal/raftgroup/store"
)

// TestFlips: after a change of any one byte of any of its files, a store refuses to
// open, or fails where it is read, or holds exactly the state after one of its
// batches: the last one, or an earlier one, as if the later ones had not been
// synced. They are applied again from the log of the replica, and if that begins
// later, the replica refuses to start.
//
// It stands in a file behind that of TestCloseLeavesNoGoroutine, because it leaves
// stopped databases behind.
func TestFlips(t *testing.T) {
	const flushed, batches = 8, 14
	sums := expected(t, batches)
	fs := vfs.NewCrashableMem()
	options := func(fs vfs.FS) Options { return Options{Dir: "store", FS: fs, StallLimit: -1} }
	s := openTest(t, options(fs))
	for n := 1; n <= batches; n++ {
		commit(t, s, func(b store.Batch) error { return batchOf(n, b) })
		if n == flushed { // into a table, when the store is opened again
			must(t, s.Close())
			s = openTest(t, options(fs))
		}
	}
	must(t, s.Sync())
	sound := fs.CrashClone(vfs.CrashCloneCfg{})
	must(t, s.Close())

	kinds := map[string]bool{}
	for _, dir := range []string{"store", "store/" + stateName(1)} {
		files, err := sound.List(dir)
		must(t, err)
		for _, name := range files {
			path := sound.PathJoin(dir, name)
			if info, err := sound.Stat(path); err != nil || info.IsDir() {
				must(t, err)
				continue
			}
			kinds[kindOf(name)] = true
			content, counts := readFile(t, sound, path), map[string]int{}
			for at := 0; at < len(content); at += stepOf(name, content, at) {
				was := content[at]
				is := []byte{was ^ 1<<(at%8), ^was, 0}[at%3]
				fs := sound.CrashClone(vfs.CrashCloneCfg{})
				changed := append([]byte(nil), content...)
				changed[at] = is
				must(t, writeFile(fs, path, changed))
				outcome, err := judge(options(fs), sums)
				if err != nil {
					t.Errorf("%s with byte %d changed from %02x to %02x: %v", path, at, was, is, err)
				}
				counts[outcome]++
			}
			t.Logf("%s of %d bytes: %v", path, len(content), counts)
		}
	}
	for _, kind := range []string{"CURRENT", "SEAL", "sst", "log", "MANIFEST", "OPTIONS", "marker"} {
		if !kinds[kind] {
			t.Errorf("there is no file of kind %s among %v", kind, kinds)
		}
	}
}

// stepOf says how far the next byte is that is changed. Of the options, which are
// text that is parsed, and of long runs of zeros a sample is enough; so it is of
// tables, whose blocks have checksums: each failure leaves a stopped database behind,
// which takes time as long as the process lives.
func stepOf(name string, content []byte, at int) int {
	zeros := content[at:min(at+32, len(content))]
	switch {
	case kindOf(name) == "sst":
		return 97
	case kindOf(name) == "OPTIONS" || !slices.ContainsFunc(zeros, func(b byte) bool { return b != 0 }):
		return 31
	case testing.Short():
		return 7
	}
	return 1
}

// judge opens a store that may be damaged, and reads all of it.
func judge(o Options, sums []store.Sum) (outcome string, err error) {
	s, err := Open(o)
	if err != nil {
		return "refused", nil
	}
	defer s.Close()
	m := store.NewMem()
	b, err := m.NewBatch()
	if err != nil {
		return "", err
	}
	it, err := s.Iterate(nil, nil)
	if err != nil {
		return "stopped", nil
	}
	n := 0
	for it.Next() {
		if string(it.Key()) == "n" {
			n = int(binary.BigEndian.Uint64(it.Value()))
		}
		if err := b.Set(it.Key(), it.Value()); err != nil {
			return "", err
		}
	}
	if it.Close() != nil {
		return "stopped", nil
	}
	if err := b.Commit(); err != nil {
		return "", err
	}
	switch {
	case n >= len(sums) || m.Hash() != sums[n]:
		return "other", fmt.Errorf("it holds what is no state, at batch %d", n)
	case n == len(sums)-1:
		return "the same", nil
	}
	return "earlier", nil
}

// kindOf names the kind of a file.
func kindOf(name string) string {
	for _, kind := range []string{"CURRENT", "MANIFEST", "OPTIONS", "marker", "sst", "log"} {
		if len(name) >= len(kind) && (name[:len(kind)] == kind || name[len(name)-len(kind):] == kind) {
			return kind
		}
	}
	return name
}
