package raftgroup

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/shoalkv/shoal/raftgroup/formation"
)

// raftgroup's records on disk and in the log never change their bytes, and are
// read back as they were written.
func TestGoldenRecords(t *testing.T) {
	m := members{index: 5, config: raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "a.01", Address: "h:1"}, {Suffrage: raft.Nonvoter, ID: "b.02", Address: "h:2"},
	}}}
	head := header{index: 9, term: 3, members: m}
	joined := formation.Member{Label: "b", ServerID: "b.02", Address: "h:2"}
	for _, c := range []struct {
		what    string
		encoded []byte
		want    string
		same    func(b []byte) bool
	}{
		{"position", position{index: 1, term: 2, clock: 3, feature: 4}.encode(),
			"0100000000000000010000000000000002000000000000000304", nil},
		{"members", m.encode(), "0100000000000000050002000004612e30310003683a31010004622e30320003683a32",
			func(b []byte) bool { got, err := decodeMembers(b); return err == nil && reflect.DeepEqual(got, m) }},
		{"header of a snapshot", head.encode(), "53484f414c534e50000100000000000000090000000000000003000000230100000000000000050002000004612e30310003683a31010004622e30320003683a326311c493",
			func(b []byte) bool {
				got, err := readHeader(bytes.NewReader(b))
				return err == nil && reflect.DeepEqual(got, head)
			}},
		{"replacement", replacement{"b.02", "a.01"}.encode(), "010004622e30320004612e3031",
			func(b []byte) bool {
				got, err := decodeReplacement(b)
				return err == nil && got == replacement{"b.02", "a.01"}
			}},
		{"label of a member", encodeMemberRecord(joined), "0001620004622e30320003683a32",
			func(b []byte) bool { got, err := decodeMemberRecord(b); return err == nil && got == joined }},
	} {
		if got := hex.EncodeToString(c.encoded); got != c.want {
			t.Errorf("%s is %s, want %s", c.what, got, c.want)
		}
		if c.same != nil && !c.same(c.encoded) {
			t.Errorf("%s is not read back as it was written", c.what)
		}
	}
}
