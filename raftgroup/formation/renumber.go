package formation

import (
	"errors"
	"maps"
)

// An AddressMove says that an address of a member in its group's configuration
// stands for another one: the member was moved while the group was stopped.
type AddressMove struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// ReadIdentity reads the identity of a data directory whose replica is stopped.
// The caller holds its lock. Errors include *DamagedError.
func ReadIdentity(dir string) (Identity, error) {
	r, err := readRecord(dir)
	if err != nil {
		return Identity{}, err
	}
	if r == nil || r.Phase != phaseStarted {
		return Identity{}, errors.New("no replica has run in " + dir)
	}
	return *r.Identity, nil
}

// Renumber records where the members of a stopped replica's group are from now
// on, by their server ids, in place of what was recorded before. The group's
// configuration stays as it is: once the group runs, its leader changes that. The
// caller holds the directory's lock.
func Renumber(dir string, moves map[string]AddressMove) error {
	r, err := readRecord(dir)
	if err != nil {
		return err
	}
	if r == nil || !r.formed() {
		return errors.New("no replica was formed in " + dir)
	}
	r.Renumbered = maps.Clone(moves)
	return writeRecord(dir, r, func(step) error { return nil })
}

// Renumbered returns what Renumber has recorded; nil: nothing.
func (f *Former) Renumbered() map[string]AddressMove { return maps.Clone(f.rec.Load().Renumbered) }
