package logstore

import "errors"

// CrashMemory opens a store on what a crash of s would leave behind.
func CrashMemory(s LogStore) (LogStore, error) {
	c, ok := s.(*checked)
	if !ok {
		return nil, errors.New("not a checked store")
	}
	slots := c.hard.slots.(*slotMemory).clone()
	hard, _, err := openHardStates(slots)
	if err != nil {
		return nil, err
	}
	return newChecked(KindMemory, c.b.(*memory).clone(), hard)
}

// BoltUses tells which bytes of a file are in pages that its newest transaction
// reaches.
func BoltUses(path string) (func(at int) bool, error) {
	b, _, err := walkBoltFile(path, 0)
	if err != nil {
		return nil, err
	}
	return func(at int) bool {
		page := uint64(int64(at) / b.pageSize)
		return page < 2 || b.seen[page]
	}, nil
}
