package formation

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// TestFlips: after a change of any one byte of the identity file, it is refused as
// damaged, or read as what it was.
func TestFlips(t *testing.T) {
	const id = "a.000102030405060708090a0b0c0d0e0f"
	want := &record{Format: format, Group: 7, Label: "a", ServerID: id, Phase: phaseStarted, Ballot: 2, Identity: &Identity{
		Format: format, Cluster: shardcfg.ClusterID{1}, Group: 7, Incarnation: shardcfg.Incarnation{2}, ShardCount: 64,
		Label: "a", ServerID: id, Founders: []Member{{Label: "a", ServerID: id, Address: "h:1"}}, LogStore: "bolt",
	}}
	sound, err := encodeRecord(want)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for at, was := range sound {
		for _, is := range []byte{was ^ 1<<(at%8), was ^ 0x20, ^was, 0} {
			b := bytes.Clone(sound)
			b[at] = is
			if err := os.WriteFile(filepath.Join(dir, FileName), b, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readRecord(dir)
			if damaged := errors.As(err, new(*DamagedError)); damaged || err == nil && reflect.DeepEqual(got, want) {
				continue
			}
			t.Errorf("with byte %d changed from %q to %q, it is read as %+v, %v", at, was, is, got, err)
		}
	}
}
