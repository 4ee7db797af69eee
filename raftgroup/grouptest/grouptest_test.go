package grouptest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shoalkv/shoal/raftgroup"
	"github.com/shoalkv/shoal/raftgroup/entry"
	"github.com/shoalkv/shoal/raftgroup/store"
)

// A counter counts commands and keeps each body; fault plants a bug.
type counter struct {
	fault string
	n     uint64
	kept  [][]byte
}

var serial uint64 // what no machine may depend on

func (c *counter) Apply(b store.Batch, e *entry.Entry) ([]any, error) {
	results := make([]any, 0, len(e.Commands))
	for _, command := range e.Commands {
		if command.Kind != entry.KindMachineMin {
			if c.fault == "skips unknown kinds" {
				results = append(results, nil)
				continue
			}
			return nil, errors.New("unknown kind")
		}
		if _, _, err := b.Get([]byte("n")); err != nil && c.fault != "ignores the store's errors" {
			return nil, err
		}
		c.n++
		body := command.Body
		if c.fault == "keeps the command's memory" {
			c.kept = append(c.kept, body)
			body = c.kept[0]
		}
		if c.fault == "depends on the process" {
			serial++
			body = binary.BigEndian.AppendUint64(nil, serial)
		}
		if err := b.Set(fmt.Appendf(nil, "k%d", c.n), body); err != nil {
			return nil, err
		}
		results = append(results, c.n)
	}
	if c.fault == "answers too little" {
		results = results[:len(results)-1]
	}
	key := []byte("n")
	if c.fault == "writes foreign keys" {
		key = []byte{0xFF, 0xFF, 7}
	}
	return results, b.Set(key, binary.BigEndian.AppendUint64(nil, c.n))
}

func (c *counter) Reset(r store.Reader) error {
	if c.fault == "keeps its cache" {
		return nil
	}
	c.n = 0
	b, ok, err := r.Get([]byte("n"))
	if err == nil && ok && c.fault != "forgets too much" {
		c.n = binary.BigEndian.Uint64(b)
	}
	return err
}

func (c *counter) Applied(uint64) {}

func script() Script {
	var s Script
	for i := range 6 {
		e := entry.Entry{Clock: uint64(i)}
		for j := range 1 + i%3 {
			e.Commands = append(e.Commands, entry.Command{Kind: entry.KindMachineMin, Body: fmt.Appendf(nil, "%d-%d", i, j)})
		}
		s = append(s, e)
	}
	return s
}

// Claim: a machine that keeps the contract passes.
func TestGoodMachine(t *testing.T) {
	Run(t, func() raftgroup.StateMachine { return &counter{} }, script())
}

// Claim: each breach of the contract is caught, by the check that is meant for
// it.
func TestPlantedFaults(t *testing.T) {
	for fault, check := range map[string]string{
		"skips unknown kinds":        "UnknownKindIsAnError",
		"ignores the store's errors": "StoreErrorsAreNotResults",
		"keeps the command's memory": "BatchesDoNotMatter ReplayAfterCrash ResetForgetsOnlyCaches",
		"depends on the process":     "EqualOnEveryReplica",
		"answers too little":         "EqualOnEveryReplica",
		"writes foreign keys":        "OwnKeysAreLeftAlone",
		"keeps its cache":            "ReplayAfterCrash",
		"forgets too much":           "ResetForgetsOnlyCaches",
	} {
		t.Run(fault, func(t *testing.T) {
			caught := ""
			for _, c := range checks {
				err := c.run(suite{func() raftgroup.StateMachine { return &counter{fault: fault} }, number(script())})
				if err != nil && strings.Contains(check, c.name) {
					return
				}
				if err != nil {
					caught += " " + c.name
				}
			}
			t.Fatalf("it is not caught by %s, but by%s", check, caught)
		})
	}
}
