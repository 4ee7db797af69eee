package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
)

// stagingPrefix begins the name of a staging directory, and of a file of lines that is
// on its way; a random text follows.
const stagingPrefix = ".shoal-export-"

const (
	// stagingWriters write files at the same time: what they wait for is fsync,
	// which many files share.
	stagingWriters = 32
	// stagingDirsKnown bounds the directories that are remembered as made.
	stagingDirsKnown = 4096
)

func newStagingName() string { return stagingPrefix + rand.Text() }

// isStaging reports whether a name is one of what exports have on its way.
func isStaging(name string) bool {
	random, ok := strings.CutPrefix(name, stagingPrefix)
	return ok && len(random) == len(rand.Text()) && strings.Trim(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// A record is a key and a value on the way to a file.
type record struct {
	key   string
	value []byte
}

// A staging is a hidden directory in the one that is exported to, and so on the
// same file system: files are written and fsynced in it, and then renamed to
// where they belong. An export that is killed leaves it behind; imports leave it
// out. It has the keys' paths in the form in which the file system keeps them, so
// that names that are one there, as "A" and "a" are on some, are found to be.
type staging struct {
	root   *os.Root // the directory that is exported to
	temp   string   // the staging directory's name in it
	live   *Live
	synced func(*os.File) // see export

	mu struct {
		sync.Mutex
		made     map[string]bool // directories that exist
		problems problems
		blamed   map[string]bool // paths that two keys need for different things
	}
}

func newStaging(dir string, live *Live) (*staging, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &staging{root: root, temp: newStagingName(), live: live}
	s.mu.made, s.mu.blamed = map[string]bool{}, map[string]bool{}
	if err := root.Mkdir(s.temp, 0o700); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

// fill writes what produce puts, with several writers, and waits for them. It
// returns the first error, or else a *RefusedError if keys collide.
func (s *staging) fill(ctx context.Context, produce func(context.Context, func(record) error) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	records := make(chan record, stagingWriters)
	var wg sync.WaitGroup
	for range stagingWriters {
		wg.Go(func() {
			for r := range records {
				if ctx.Err() == nil {
					if err := s.write(r); err != nil {
						cancel(err)
					}
				}
			}
		})
	}
	err := produce(ctx, func(r record) error {
		select {
		case records <- r:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(records)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.problems.err()
}

// write writes one file, or finds that its name collides with another key's.
// Once there is such a problem nothing will be placed, and files stay empty.
func (s *staging) write(r record) error {
	if why := refusal(s.root, r.key); why != nil { // it is younger than the survey
		return s.refuse(r.key, why)
	}
	f, err := s.create(r.key)
	if err != nil {
		at, found := obstacle(s.root, s.temp, r.key)
		switch {
		case found == nil:
			return err
		case at == r.key && !found.IsDir():
			err = fmt.Errorf("key %s %w: its file is the one of another key", quote([]byte(r.key)), ErrCollision)
		default: // whichever of the two came first
			err = fmt.Errorf("key %s %w: it is a directory of other keys", quote([]byte(at)), ErrCollision)
		}
		return s.refuse(at, err)
	}
	if s.refused() {
		return f.Close()
	}
	_, err = f.Write(r.value)
	if err == nil {
		err = syncFile(f, s.synced)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	s.live.add(len(r.value))
	s.live.done.Add(1)
	return nil
}

func (s *staging) create(key string) (*os.File, error) {
	if err := s.makeDir(path.Dir(key)); err != nil {
		return nil, err
	}
	return s.root.OpenFile(path.Join(s.temp, key), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
}

func (s *staging) makeDir(dir string) error {
	s.mu.Lock()
	made := s.mu.made[dir]
	s.mu.Unlock()
	if made || dir == "." {
		return nil
	}
	if err := s.root.MkdirAll(path.Join(s.temp, dir), 0o777); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.made) >= stagingDirsKnown {
		clear(s.mu.made)
	}
	s.mu.made[dir] = true
	return nil
}

// refuse records why the export can't go on. What several keys say of one path is
// one problem.
func (s *staging) refuse(at string, why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.blamed[at] {
		return nil
	}
	s.mu.blamed[at] = true
	if !s.mu.problems.add(why) {
		return errEnough
	}
	return nil
}

func (s *staging) refused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.problems.count > 0
}

// place moves everything below dir from the staging to where it belongs, and
// makes the new names durable. It reads names in batches: what was placed is gone
// from the staging, so that each batch begins anew.
func (s *staging) place(ctx context.Context, dir string) error {
	for {
		entries, err := s.names(path.Join(s.temp, dir))
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return s.syncNames(dir)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.placeOne(ctx, path.Join(dir, e.Name()), e.IsDir()); err != nil {
				return err
			}
		}
	}
}

func (s *staging) placeOne(ctx context.Context, name string, isDir bool) error {
	from := path.Join(s.temp, name)
	if !isDir {
		return s.root.Rename(from, name)
	}
	if err := s.root.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := s.place(ctx, name); err != nil {
		return err
	}
	return s.root.Remove(from)
}

// names returns some of the entries of a directory; none: it is empty.
func (s *staging) names(dir string) ([]fs.DirEntry, error) {
	f, err := s.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBatch(f)
}

// syncNames makes the names in a directory durable.
func (s *staging) syncNames(dir string) error {
	f, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncFile(f, s.synced), f.Close())
}

// close removes what is left of the staging.
func (s *staging) close() error { return errors.Join(s.root.RemoveAll(s.temp), s.root.Close()) }
