package formation

import (
	"reflect"
	"testing"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// The identity file never changes its bytes: it is what a replica is, for good.
func TestGoldenIdentityFile(t *testing.T) {
	const id = "a.000102030405060708090a0b0c0d0e0f"
	r := &record{Format: format, Group: 7, Label: "a", ServerID: id, Phase: phaseStarted, Ballot: 2, Identity: &Identity{
		Format: format, Cluster: shardcfg.ClusterID{1}, Group: 7, Incarnation: shardcfg.Incarnation{2}, ShardCount: 64,
		Label: "a", ServerID: id, Founders: []Member{{Label: "a", ServerID: id, Address: "h:1"}}, LogStore: "bolt",
	}}
	const want = `{
  "crc32c": "a6d3fc62",
  "record": {
    "format": 1,
    "group": 7,
    "label": "a",
    "server_id": "a.000102030405060708090a0b0c0d0e0f",
    "phase": "started",
    "ballot": 2,
    "identity": {
      "format": 1,
      "cluster": "01000000000000000000000000000000",
      "group": 7,
      "incarnation": "02000000000000000000000000000000",
      "shard_count": 64,
      "label": "a",
      "server_id": "a.000102030405060708090a0b0c0d0e0f",
      "founders": [
        {
          "label": "a",
          "server_id": "a.000102030405060708090a0b0c0d0e0f",
          "address": "h:1"
        }
      ],
      "log_store": "bolt"
    }
  }
}
`
	b, err := encodeRecord(r)
	if err != nil || string(b) != want {
		t.Errorf("the file is %s, %v; want %s", b, err, want)
	}
	if got, err := decodeRecord(b); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("the file is read back as %+v, %v", got, err)
	}
}
