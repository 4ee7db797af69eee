package workload

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/history"
)

// Every key serves a bounded number of calls, all keys that were used are read
// at the end, and the history of a correct store is accepted.
func TestKeysAreReplaced(t *testing.T) {
	s := &oneLock{values: map[string]clerk.Value{}}
	recorder := history.NewRecorder()
	o := Options{Prefix: "t/", Clients: 4, Keys: 2, KeyOpsMax: 50}
	load, err := Start([]Store{s}, o, recorder)
	if err != nil {
		t.Fatal(err)
	}
	for load.Calls() < 2000 {
		time.Sleep(time.Millisecond) // poll
	}
	load.Stop()
	final, err := load.ReadAll(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	h, used := recorder.History(), map[string]int{}
	for _, op := range h {
		used[op.Key]++
	}
	registers, appendOnly := load.Keys()
	for key, n := range used {
		if !slices.Contains(registers, key) && !slices.Contains(appendOnly, key) {
			t.Errorf("key %q was used, and is not listed", key)
		}
		if uint64(n) > o.KeyOpsMax+1 { // and the final read
			t.Errorf("key %q served %d calls", key, n)
		}
	}
	if len(used) < 2000/50 || len(used) != len(registers)+len(appendOnly) || len(final) != len(appendOnly) {
		t.Errorf("%d keys used, %d and %d listed, %d final values", len(used), len(registers), len(appendOnly), len(final))
	}
	if v, tokens := h.Linearizable(time.Minute), h.CheckTokens(final); !v.Linearizable || !tokens.OK() || tokens.Acknowledged == 0 {
		t.Errorf("%s; %s", v, tokens)
	}
}

// oneLock is a store that is correct because it does one thing at a time.
type oneLock struct {
	mu     sync.Mutex
	values map[string]clerk.Value
	newest clerk.Version
}

func (s *oneLock) Get(_ context.Context, key []byte) (clerk.Value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[string(key)]
	if !ok {
		return v, clerk.ErrNotFound
	}
	return v, nil
}

// Put refuses conditions: nothing is done.
func (s *oneLock) Put(_ context.Context, key, value []byte, options ...clerk.WriteOption) (clerk.Version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(options) > 0 {
		return 0, errors.Join(clerk.ErrNotDone, errors.New("no conditions here"))
	}
	return s.set(string(key), string(value)), nil
}

func (s *oneLock) Append(_ context.Context, key, value []byte, _ ...clerk.WriteOption) (clerk.Appended, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := string(s.values[string(key)].Bytes) + string(value)
	return clerk.Appended{Version: s.set(string(key), whole), Length: uint64(len(whole))}, nil
}

func (s *oneLock) Delete(_ context.Context, key []byte, _ ...clerk.WriteOption) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.values[string(key)]; !ok {
		return clerk.ErrNotFound
	}
	delete(s.values, string(key))
	return nil
}

func (s *oneLock) set(key, value string) clerk.Version {
	s.newest++
	s.values[key] = clerk.Value{Bytes: []byte(strings.Clone(value)), Version: s.newest}
	return s.newest
}
