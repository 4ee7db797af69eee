package logstore

import "errors"

// CrashMemory opens a store on what a crash of s would leave behind.
func CrashMemory(s LogStore) (LogStore, error) {
	c, ok := s.(*checked)
	if !ok {
		return nil, errors.New("not a checked store")
	}
	return newChecked(KindMemory, c.b.(*memory).clone())
}
