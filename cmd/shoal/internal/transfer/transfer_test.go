package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// A directory that is imported and exported again has the same files with the
// same bytes; links are counted and not kept; what is over a limit is reported
// and the rest imported.
func TestDirectoryRoundTrip(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"empty": "", "a/b/c.txt": "hello", "a/b/d": strings.Repeat("x", 100_000), "odd \xff\nname": "\x00\xff", "ü": "ü"}
	for i := range 300 {
		files[fmt.Sprintf("many/%03d", i)] = fmt.Sprint(i)
	}
	for name, content := range files {
		writeFile(t, filepath.Join(dir, name), content)
	}
	writeFile(t, filepath.Join(dir, "big"), strings.Repeat("x", shardcfg.ValueBytesMax+1))
	for name, target := range map[string]string{"link": "ü", "dangling": "nowhere", "loop": "."} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	src, err := NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := newFakeStore()
	skipped := map[string]error{}
	var live Live
	got, err := Import(t.Context(), s, src, ImportOptions{Skipped: func(name string, why error) { skipped[name] = why }}, &live)
	if err != nil {
		t.Fatal(err)
	}
	want := ImportResult{Keys: uint64(len(files)), Skipped: 1, Links: 3, Seconds: got.Seconds}
	for _, content := range files {
		want.Bytes += uint64(len(content))
	}
	if got != want {
		t.Errorf("result %+v; want %+v", got, want)
	}
	if why := skipped[filepath.Join(dir, "big")]; len(skipped) != 1 || !errors.Is(why, shardcfg.ErrValueTooLarge) {
		t.Errorf("skipped: %v", skipped)
	}
	if !maps.Equal(s.data(), files) {
		t.Error("the store does not hold what the directory held")
	}
	if done, total := live.Progress(); done != total || total != uint64(len(files)+4) {
		t.Errorf("progress ended at %d of %d", done, total)
	}

	out := filepath.Join(t.TempDir(), "made", "for it")
	exported, err := Export(t.Context(), s, nil, out, new(Live))
	if err != nil {
		t.Fatal(err)
	}
	if exported.Keys != got.Keys || exported.Bytes != got.Bytes {
		t.Errorf("exported %+v of %+v", exported, got)
	}
	if !maps.Equal(readTree(t, out), files) {
		t.Error("the exported directory is not the imported one")
	}
}

// The total is known once the files are read, also where the walk that counts
// them ahead is the slower one, as it is for few files.
func TestTotalOfFewFiles(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "only"), "one")
	src, err := NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		var live Live
		if err := src.Each(t.Context(), &live, func(Item) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if _, total := live.Progress(); total != 1 {
			t.Fatalf("the total is %d", total)
		}
	}
}

// A file of JSON lines is imported in its order for each key; lines that are no
// records, or over a limit, are reported by number and the rest is imported.
func TestJSONLines(t *testing.T) {
	big := strings.Repeat("x", shardcfg.ValueBytesMax+1)
	file := strings.Join([]string{
		`{"key":"a","value":"1","version":7}`,
		``,
		`{"key_base64":"/w==","value_base64":"AP8="}`,
		`{"key":"big","value":"` + big + `"}`,
		`{"key":"huge","value":"` + strings.Repeat("x", lineBytesMax) + `"}`,
		`{"key":"","value":"x"}`,
		`not json`,
		`{"key":"k"}`,
		`{"key":"k","key_base64":"aw==","value":""}`,
		`{"key":"raw` + "\xff" + `","value":""}`,
		`{"key":"a","value":"2"}`,
		`{"key":"<&>","value":""}`, // no newline at the end
	}, "\n")
	for i := range 50 {
		file = fmt.Sprintf("{\"key\":\"seq\",\"value\":\"%d\"}\n", i) + file
	}
	s := newFakeStore()
	var skipped []string
	var live Live
	src := NewJSONLines(strings.NewReader(file), "f", int64(len(file)))
	got, err := Import(t.Context(), s, src, ImportOptions{Skipped: func(name string, _ error) { skipped = append(skipped, name) }}, &live)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(skipped)
	if want := []string{"f:54", "f:55", "f:56", "f:57", "f:58", "f:59", "f:60"}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %v; want %v", skipped, want)
	}
	if want := map[string]string{"a": "2", "\xff": "\x00\xff", "<&>": "", "seq": "0"}; !maps.Equal(s.data(), want) {
		t.Errorf("the store holds %q", s.data())
	}
	if got.Keys != 54 || got.Skipped != 7 {
		t.Errorf("result %+v", got)
	}
	if done, total := live.Progress(); done != total {
		t.Errorf("progress ended at %d of %d", done, total)
	}
}

// The first failure of the store ends an import, which says what was in the way
// and counts what was put; a record that the store refuses is only skipped.
func TestImportStopsWhenTheStoreFails(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("%03d", i)), "x")
	}
	src, err := NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	down := errors.New("down")
	s := newFakeStore()
	s.fail = func(key string) error {
		switch {
		case key == "000":
			return fmt.Errorf("%w: odd", ErrSkip)
		case key >= "050":
			return down
		}
		return nil
	}
	got, err := Import(t.Context(), s, src, ImportOptions{InFlight: 4}, new(Live))
	if !errors.Is(err, down) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error is %v", err)
	}
	if got.Keys != uint64(len(s.data())) || got.Keys > 49 || got.Skipped > 1 {
		t.Errorf("result %+v with %d in the store", got, len(s.data()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Import(ctx, newFakeStore(), src, ImportOptions{}, new(Live)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type fakeStore struct {
	fail      func(key string) error
	afterScan func()

	mu struct {
		sync.Mutex
		data map[string]string
	}
}

func newFakeStore() *fakeStore {
	s := &fakeStore{}
	s.mu.data = map[string]string{}
	return s
}

func (s *fakeStore) put(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.data[key] = value
}

func (s *fakeStore) data() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.mu.data)
}

func (s *fakeStore) Put(ctx context.Context, key, value []byte) error {
	if s.fail != nil {
		if err := s.fail(string(key)); err != nil {
			return err
		}
	}
	s.put(string(key), string(value))
	return nil
}

func (s *fakeStore) Scan(ctx context.Context, prefix []byte, keysOnly bool, each func(key, value []byte) error) error {
	data := s.data()
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if !bytes.HasPrefix([]byte(key), prefix) {
			continue
		}
		var value []byte
		if !keysOnly {
			value = []byte(data[key])
		}
		if err := each([]byte(key), value); err != nil {
			return err
		}
	}
	if s.afterScan != nil {
		s.afterScan()
	}
	return nil
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, []byte(content), 0o666)); err != nil {
		t.Fatal(err)
	}
}

// readTree returns the regular files below dir; none where there is no dir.
func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.Type().IsRegular() {
			if name := e.Name(); strings.HasPrefix(name, ".shoal") {
				t.Errorf("left behind: %s", name)
			}
			return nil
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[rel] = string(b)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}
