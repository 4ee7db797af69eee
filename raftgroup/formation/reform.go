package formation

import (
	"crypto/rand"
	"fmt"
	"io/fs"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// Read returns the identity of a formed replica's directory, and changes nothing.
// Damage is a *DamagedError.
func Read(dir string) (Identity, error) {
	r, err := readRecord(dir)
	switch {
	case err != nil:
		return Identity{}, err
	case r == nil:
		return Identity{}, fmt.Errorf("%s: no data directory of a replica is there: %w", dir, fs.ErrNotExist)
	case !r.formed():
		return Identity{}, fmt.Errorf("%s: its replica was never part of a group", dir)
	}
	return *r.Identity, nil
}

// Reformed returns the identity of the first replica of a new group in the same
// cluster, under that gid: a new incarnation, and a new server id.
func (id Identity) Reformed(group shardcfg.GroupID, label, address string) (Identity, error) {
	id.Group, id.Label = group, label
	if _, err := rand.Read(id.Incarnation[:]); err != nil {
		return Identity{}, fmt.Errorf("draw an incarnation: %w", err)
	}
	var err error
	if id.ServerID, err = newServerID(label, rand.Reader); err != nil {
		return Identity{}, err
	}
	id.Founders = []Member{{Label: label, ServerID: id.ServerID, Address: address}}
	if err := id.check(); err != nil {
		return Identity{}, &UsageError{Problem: err.Error()}
	}
	return id, nil
}

// Take makes dir, which holds a replica's log and state, that of a formed replica,
// durably. It is the last step: without an identity such a directory is refused.
func Take(dir string, id Identity) error {
	return writeRecord(dir, &record{
		Format: format, Group: id.Group, Label: id.Label, ServerID: id.ServerID, Phase: phaseStarted, Identity: &id,
	}, func(step) error { return nil })
}
