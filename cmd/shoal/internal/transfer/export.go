package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"sync"
	"time"
)

const exportWriters = 8

// An ExportResult says what an export wrote.
type ExportResult struct {
	Keys    uint64  `json:"keys"`
	Bytes   uint64  `json:"bytes"` // of the values
	Seconds float64 `json:"seconds"`
}

// Export writes every key with the prefix to a file below dir, which it makes
// if need be. It reads all keys first: if one can't be a file below dir, or two
// need the same name, or dir already has something else in their place, it
// returns a *RefusedError and has written nothing. Then each file appears with
// its whole content, replacing an older one; other files are left alone. A key
// that is created meanwhile may be left out. No link in dir leads it outside.
func Export(ctx context.Context, from Scanner, prefix []byte, dir string, live *Live) (ExportResult, error) {
	start := time.Now()
	result := func() ExportResult {
		return ExportResult{Keys: live.Keys(), Bytes: live.Bytes(), Seconds: time.Since(start).Seconds()}
	}
	p := newPlan()
	err := from.Scan(ctx, prefix, true, func(key, _ []byte) error { p.add(key); return nil })
	if err != nil {
		return result(), err
	}
	if err := p.checkAgainst(dir); err != nil {
		return result(), err
	}
	live.total.Store(uint64(len(p.files)))
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return result(), err
	}
	w, err := newFileWriter(dir, live)
	if err != nil {
		return result(), err
	}
	err = w.run(ctx, func(ctx context.Context, put func(record) error) error {
		return from.Scan(ctx, prefix, false, func(key, value []byte) error {
			if !p.has(key) {
				return nil
			}
			return put(record{string(key), value})
		})
	})
	return result(), errors.Join(err, w.close())
}

// checkAgainst adds to the plan's problems what dir already holds in the place
// of a planned file or directory, and returns them all.
func (p *plan) checkAgainst(dir string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return p.err()
	}
	if err != nil {
		return err
	}
	defer root.Close()
	for _, key := range p.files {
		if info, err := root.Lstat(key); err == nil && info.IsDir() {
			p.problem(fmt.Errorf("key %s %w: a directory of that name is there", quote([]byte(key)), ErrCollision))
		}
	}
	for dirPath, key := range p.dirs {
		if info, err := root.Lstat(dirPath); err == nil && !info.IsDir() {
			p.problem(fmt.Errorf("key %s %w: %q is there and no directory", quote([]byte(key)), ErrCollision, dirPath))
		}
	}
	return p.err()
}

// A record is a key and a value on the way to a file.
type record struct {
	key   string
	value []byte
}

// A fileWriter writes files below a directory, each at once: to a hidden
// directory first, then renamed into place.
type fileWriter struct {
	root *os.Root
	temp string
	live *Live
	mu   struct {
		sync.Mutex
		made map[string]bool // directories that exist
	}
}

func newFileWriter(dir string, live *Live) (*fileWriter, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	w := &fileWriter{root: root, temp: ".shoal-export-" + rand.Text(), live: live}
	w.mu.made = map[string]bool{".": true}
	if err := root.Mkdir(w.temp, 0o700); err != nil {
		root.Close()
		return nil, err
	}
	return w, nil
}

// run writes what produce puts, with several writers, and waits for them. It
// returns the first error.
func (w *fileWriter) run(ctx context.Context, produce func(context.Context, func(record) error) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	records := make(chan record, exportWriters)
	var wg sync.WaitGroup
	for i := range exportWriters {
		wg.Go(func() {
			temp := path.Join(w.temp, strconv.Itoa(i))
			for r := range records {
				if ctx.Err() == nil {
					if err := w.write(r, temp); err != nil {
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
		return cause
	}
	return err
}

func (w *fileWriter) write(r record, temp string) error {
	if err := w.makeDir(path.Dir(r.key)); err != nil {
		return err
	}
	if err := w.root.WriteFile(temp, r.value, 0o666); err != nil {
		return err
	}
	if err := w.root.Rename(temp, r.key); err != nil {
		return err
	}
	w.live.add(len(r.value))
	w.live.done.Add(1)
	return nil
}

func (w *fileWriter) makeDir(dir string) error {
	w.mu.Lock()
	made := w.mu.made[dir]
	w.mu.Unlock()
	if made {
		return nil
	}
	if err := w.root.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.made[dir] = true
	return nil
}

func (w *fileWriter) close() error {
	return errors.Join(w.root.RemoveAll(w.temp), w.root.Close())
}
