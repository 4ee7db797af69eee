package check

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalkv/shoal/clerk"
	"github.com/shoalkv/shoal/integration/workload"
)

// A correct store passes, its keys are gone afterwards, and the picture is
// there; an interruption ends it early, with a verdict.
func TestCorrectStore(t *testing.T) {
	s := newMemory()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	picture := filepath.Join(t.TempDir(), "picture.html")
	r, err := Run(ctx, []workload.Store{s}, Options{Clients: 4, Keys: 4, Duration: time.Hour, HTML: picture,
		Watch: func(phase string, sample func() Progress) func() {
			if phase == "check" {
				go func() {
					for sample().Text == "" || s.count() < 4 {
						time.Sleep(time.Millisecond) // poll
					}
					interrupt()
				}()
			}
			return func() {}
		}})
	if err != nil || !r.OK() || r.Ops < 4 || r.Remaining != "" || r.Key != "" {
		t.Fatalf("%+v %v", r, err)
	}
	if left := len(s.values); left != 0 {
		t.Errorf("%d keys are left", left)
	}
	if text, err := os.ReadFile(picture); err != nil || !strings.Contains(string(text), "<html") {
		t.Errorf("picture of %d bytes: %v", len(text), err)
	}
}

// A picture that can't be written takes nothing of the verdict, and is reported.
func TestPictureFails(t *testing.T) {
	for _, lies := range []bool{false, true} {
		s := newMemory()
		s.loses = lies
		dir := t.TempDir()
		r, err := Run(t.Context(), []workload.Store{s}, Options{Clients: 4, Keys: 2, Duration: 200 * time.Millisecond, HTML: filepath.Join(dir, "picture.html"),
			Watch: func(phase string, _ func() Progress) func() {
				if phase == "decide" { // it could be written when the check began
					if err := os.RemoveAll(dir); err != nil {
						t.Error(err)
					}
				}
				return func() {}
			}})
		if err != nil || r.Ops == 0 || r.OK() == lies || (r.Remaining != "") != lies {
			t.Errorf("lies %v: %+v, %v", lies, r, err)
		}
		if !errors.Is(r.PictureErr, os.ErrNotExist) {
			t.Errorf("the picture: %v", r.PictureErr)
		}
	}
}

// Each store that lies is refused, for the reason that it gives; its keys stay,
// and the report names one that shows it.
func TestLyingStores(t *testing.T) {
	for _, test := range []struct {
		name    string
		lie     func(*memory)
		refused func(*Report) bool
	}{
		{"stale reads", func(m *memory) { m.stale = true }, func(r *Report) bool { return !r.Linearizable }},
		{"lost appends", func(m *memory) { m.loses = true }, func(r *Report) bool { return r.Lost > 0 }},
		{"doubled appends", func(m *memory) { m.doubles = true }, func(r *Report) bool { return r.Duplicates > 0 }},
		{"refused appends that are done", func(m *memory) { m.denies = true }, func(r *Report) bool { return r.Refused > 0 }},
		{"conditions that always hold", func(m *memory) { m.careless = true }, func(r *Report) bool { return !r.Linearizable }},
	} {
		s := newMemory()
		test.lie(s)
		r, err := Run(t.Context(), []workload.Store{s}, Options{Clients: 4, Keys: 2, Duration: 200 * time.Millisecond})
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if r.OK() || !test.refused(r) || !strings.HasPrefix(r.Key, r.Remaining) || r.Remaining == "" {
			t.Errorf("%s: not found: %+v", test.name, r)
		}
	}
}

// Where no operation succeeded there is no verdict, which is no success; that is
// said, with the reason, without waiting for what can't be read.
func TestSilentStore(t *testing.T) {
	s := newMemory()
	s.setDown(true)
	start := time.Now()
	r, err := Run(t.Context(), []workload.Store{s}, Options{Clients: 1, Keys: 1, Duration: 10 * time.Millisecond})
	if err == nil || r.OK() || r.Remaining == "" || !strings.Contains(err.Error(), "no operation succeeded") || !errors.Is(err, errRefused) {
		t.Errorf("%+v %v", r, err)
	}
	if took := time.Since(start); took > readMax/2 {
		t.Errorf("took %v", took)
	}
}

// A store that is lost under the check leaves no verdict: the final reads end
// within their bound, also where one operation would not, and the reason is said.
func TestStoreLostUnderTheCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.hangs = true
		start := time.Now()
		r, err := Run(t.Context(), []workload.Store{s}, Options{Clients: 1, Keys: 1, Duration: time.Second, OpTimeout: time.Hour,
			Watch: func(phase string, _ func() Progress) func() {
				s.setDown(phase == "final reads")
				return func() {}
			}})
		if err == nil || r.OK() || r.Remaining == "" || !strings.Contains(err.Error(), "no verdict") || !errors.Is(err, errRefused) {
			t.Errorf("%+v %v", r, err)
		}
		if took := time.Since(start); took > readMax+5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// An interruption while keys can't be read ends the check, which would else wait
// for their store.
func TestInterruptedReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemory()
		s.hangs = true
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		start := time.Now()
		r, err := Run(ctx, []workload.Store{s}, Options{Clients: 1, Keys: 1, Duration: time.Second, OpTimeout: time.Hour,
			Watch: func(phase string, _ func() Progress) func() {
				if phase == "final reads" {
					s.setDown(true)
					time.AfterFunc(time.Second, interrupt)
				}
				return func() {}
			}})
		if err == nil || r.OK() || r.Remaining == "" || !errors.Is(err, context.Canceled) {
			t.Errorf("%+v %v", r, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// memory is a store in memory, correct unless told to lie. Its conditions are
// those of the workload: on a version that was read before.
type memory struct {
	stale, loses, doubles, denies, careless bool

	mu     sync.Mutex
	down   bool // answers nothing
	hangs  bool // while it is down, until the caller's context ends
	values map[string]clerk.Value
	before map[string]clerk.Value // what each key had before its last change
	newest clerk.Version
}

func newMemory() *memory {
	return &memory{values: map[string]clerk.Value{}, before: map[string]clerk.Value{}}
}

var errRefused = errors.Join(clerk.ErrNotDone, errors.New("refused"))

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.values)
}

func (m *memory) setDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (m *memory) Get(ctx context.Context, key []byte) (clerk.Value, error) {
	time.Sleep(time.Millisecond) // else virtual time stands still
	m.mu.Lock()
	if m.down && m.hangs {
		m.mu.Unlock()
		<-ctx.Done()
		return clerk.Value{}, errRefused
	}
	defer m.mu.Unlock()
	v, ok := m.values[string(key)]
	if m.stale && rand.IntN(5) == 0 {
		v = m.before[string(key)]
		ok = v.Version != 0
	}
	switch {
	case m.down:
		return v, errRefused
	case !ok:
		return v, clerk.ErrNotFound
	}
	return v, nil
}

func (m *memory) Put(_ context.Context, key, value []byte, options ...clerk.WriteOption) (clerk.Version, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down || len(options) > 0 && !m.careless {
		return 0, errRefused
	}
	return m.set(string(key), string(value)), nil
}

func (m *memory) Append(_ context.Context, key, value []byte, _ ...clerk.WriteOption) (clerk.Appended, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, lie := string(m.values[string(key)].Bytes), rand.IntN(20) == 0
	whole := now + string(value)
	switch {
	case m.down:
		return clerk.Appended{}, errRefused
	case m.loses && lie:
		m.newest++
		return clerk.Appended{Version: m.newest, Length: uint64(len(whole))}, nil
	case m.doubles && lie:
		m.set(string(key), whole+string(value))
		return clerk.Appended{Version: m.newest, Length: uint64(len(whole))}, nil
	case m.denies && lie:
		m.set(string(key), whole)
		return clerk.Appended{}, errRefused
	}
	return clerk.Appended{Version: m.set(string(key), whole), Length: uint64(len(whole))}, nil
}

func (m *memory) Delete(_ context.Context, key []byte, _ ...clerk.WriteOption) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.values[string(key)]; m.down || !ok {
		if m.down {
			return errRefused
		}
		return clerk.ErrNotFound
	}
	m.before[string(key)] = m.values[string(key)]
	delete(m.values, string(key))
	return nil
}

func (m *memory) set(key, value string) clerk.Version {
	m.newest++
	m.before[key] = m.values[key]
	m.values[key] = clerk.Value{Bytes: []byte(value), Version: m.newest}
	return m.newest
}
