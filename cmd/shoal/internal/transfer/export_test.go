package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// An export that would not be faithful or safe writes nothing at all.
func TestRefusedExportWritesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		keys  string
		there map[string]string // in the directory before
		link  string            // in the directory, to a directory outside
	}{
		"escape":              {keys: "good ../evil"},
		"absolute":            {keys: "good /evil"},
		"empty component":     {keys: "good a//b"},
		"collision":           {keys: "a a/b"},
		"the other way":       {keys: "b/c b"},
		"deep":                {keys: "a/b/c/d a/b/c/e a/b x/y"},
		"one file in the way": {keys: "a a/b a/c"}, // one key to mend
		"on its way":          {keys: "good .shoal-export-ABCDEFGHIJKLMNOPQRSTUVWXYZ/0"},
		"directory there":     {keys: "a b", there: map[string]string{"b/x": "old"}},
		"file there":          {keys: "a b/c/d", there: map[string]string{"b": "old"}},
		"link to the outside": {keys: "a b/c", link: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeStore()
			for key := range strings.FieldsSeq(c.keys) {
				s.put(key, "new")
			}
			outside, dir := t.TempDir(), filepath.Join(t.TempDir(), "made", "out")
			for name, content := range c.there {
				writeFile(t, filepath.Join(dir, name), content)
			}
			if c.link != "" {
				if err := errors.Join(os.MkdirAll(dir, 0o777), os.Symlink(outside, filepath.Join(dir, c.link))); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Export(t.Context(), s, nil, dir, new(Live))
			if refused := new(RefusedError); !errors.As(err, &refused) || refused.Count != 1 {
				t.Errorf("error is %v; want one refusal", err)
			}
			if got := readTree(t, dir); !maps.Equal(got, c.there) {
				t.Errorf("the directory holds %q", slices.Sorted(maps.Keys(got)))
			}
			if _, err := os.Stat(filepath.Dir(dir)); len(c.there) == 0 && c.link == "" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the directory that it made is there: %v", err)
			}
			if got := readTree(t, outside); len(got) != 0 {
				t.Errorf("outside of the directory: %q", slices.Sorted(maps.Keys(got)))
			}
		})
	}
}

// An export replaces older files, leaves others alone, and takes only its prefix.
func TestExportIntoADirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "p/old"), "old")
	writeFile(t, filepath.Join(dir, "other"), "other")
	s := newFakeStore()
	s.put("p/old", "new")
	s.put("q", "not asked for")
	if _, err := Export(t.Context(), s, []byte("p/"), dir, new(Live)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"p/old": "new", "other": "other"}
	if got := readTree(t, dir); !maps.Equal(got, want) {
		t.Errorf("the directory holds %q", got)
	}
}

// A key that is written between the two looks at the store is exported if it can
// be, and else refuses the whole export, which then has written nothing.
func TestExportMeetsYoungerKeys(t *testing.T) {
	for late, want := range map[string]int{"late": 2, "p/old/late": 0, "../late": 0, "there": 0, ".shoal-export-ABCDEFGHIJKLMNOPQRSTUVWXYZ": 0} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "there"), 0o777); err != nil {
			t.Fatal(err)
		}
		s := newFakeStore()
		s.put("p/old", "new")
		s.afterScan = func() { s.put(late, "late") }
		_, err := Export(t.Context(), s, nil, dir, new(Live))
		if refused := errors.As(err, new(*RefusedError)); refused != (want == 0) || err != nil && !refused {
			t.Errorf("%s: %v", late, err)
		}
		if got := readTree(t, dir); len(got) != want {
			t.Errorf("%s: the directory holds %q", late, got)
		}
	}
}

// What a killed export left behind is no key: an import leaves it out, wherever it
// is, and says so; the next export names it, and does not touch it.
func TestLeftoversAreNoKeys(t *testing.T) {
	dir := t.TempDir()
	left := stagingPrefix + strings.Repeat("A", 26)
	for _, name := range []string{"a", "sub/b", ".shoal-export-mine", left + "/a", "sub/" + left + "/sub/b"} {
		writeFile(t, filepath.Join(dir, name), name)
	}
	src, err := NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, told := newFakeStore(), []string{}
	result, err := Import(t.Context(), s, src, ImportOptions{Skipped: func(name string, why error) {
		told = append(told, name)
		if !errors.Is(why, errLeftover) {
			t.Errorf("%s: %v", name, why)
		}
	}}, new(Live))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"a": "a", "sub/b": "sub/b", ".shoal-export-mine": ".shoal-export-mine"}; !maps.Equal(s.data(), want) || result.Skipped != 0 {
		t.Errorf("the store holds %q; %+v", s.data(), result)
	}
	if slices.Sort(told); !slices.Equal(told, []string{filepath.Join(dir, left), filepath.Join(dir, "sub", left)}) {
		t.Errorf("told of %q", told)
	}
	exported, err := Export(t.Context(), s, nil, dir, new(Live))
	if err != nil || !slices.Equal(exported.Leftovers, []string{left}) {
		t.Errorf("exported %+v, %v", exported, err)
	}
	if _, err := os.Stat(filepath.Join(dir, left, "a")); err != nil {
		t.Error(err)
	}
}

// When an export has succeeded, everything is on the disk: each file is fsynced
// with its content before it has its name, and then each directory that has new
// names, up to the one that was there before.
func TestExportIsDurable(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "made", "out")
	s := newFakeStore()
	for i := range 3 * entriesBatch {
		s.put(fmt.Sprintf("flat/%d", i), "x")
	}
	s.put("a/b/c", "content")
	s.put("top", "content")
	synced := make(chan string, 2*len(s.data()))
	e := export{from: s, dir: dir, live: new(Live), synced: func(f *os.File) {
		info, err := f.Stat()
		if err != nil {
			t.Error(err)
			return
		}
		name := f.Name()
		if !info.IsDir() {
			rel, _ := filepath.Rel(dir, name)
			_, rel, _ = strings.Cut(rel, "/")
			if want := s.data()[rel]; info.Size() != int64(len(want)) {
				t.Errorf("%s was fsynced with %d bytes of %d", rel, info.Size(), len(want))
			}
			if _, err := os.Stat(filepath.Join(dir, rel)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s had its name before it was fsynced: %v", rel, err)
			}
			name = filepath.Join(dir, rel)
		}
		synced <- name
	}}
	if err := e.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(synced)
	got := map[string]bool{}
	for name := range synced {
		got[filepath.Clean(name)] = true
	}
	if err := filepath.WalkDir(base, func(path string, _ fs.DirEntry, err error) error {
		if !got[path] {
			t.Errorf("%s was not fsynced", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := readTree(t, dir); !maps.Equal(got, s.data()) {
		t.Error("the directory does not hold what the store holds")
	}
}

// An export that is interrupted while it places its files says that some are in
// place, each of them whole, and leaves nothing else behind; so does one that is
// interrupted before, which has written nothing.
func TestInterruptedExport(t *testing.T) {
	for _, placing := range []bool{false, true} {
		dir := t.TempDir()
		s := newFakeStore()
		for i := range 200 {
			s.put(fmt.Sprintf("%d/%d", i%10, i), "content")
		}
		ctx, interrupt := context.WithCancel(t.Context())
		e := export{from: s, dir: dir, live: new(Live), synced: func(f *os.File) {
			if info, err := f.Stat(); err == nil && info.IsDir() == placing {
				interrupt()
			}
		}}
		err := e.run(ctx)
		interrupt()
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "some files are in place") != placing {
			t.Errorf("placing %v: %v", placing, err)
		}
		got := readTree(t, dir) // which also looks for what is left behind
		if (len(got) > 0) != placing || len(got) == 200 {
			t.Errorf("placing %v: %d files are in place", placing, len(got))
		}
		for name, content := range got {
			if content != "content" {
				t.Errorf("%s is cut off", name)
			}
		}
	}
}

// An export's look at all keys remembers none of them.
func TestSurveyKeepsNoKeys(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const keys, grownMax = 500_000, 4 << 20
	before := heap()
	e := export{from: scanFunc(func(each func(key, value []byte) error) error {
		for i := range keys {
			if err := each(fmt.Appendf(nil, "directory %d/file %d", i%1000, i), nil); err != nil {
				return err
			}
		}
		if grown := int64(heap()) - int64(before); grown > grownMax {
			t.Errorf("%d keys take %d bytes", keys, grown)
		}
		return nil
	}), dir: t.TempDir(), live: new(Live)}
	if err := e.survey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, total := e.live.Progress(); total != keys {
		t.Errorf("the total is %d", total)
	}
}

// scanFunc is a Scanner whose keys are made up as they are asked for.
type scanFunc func(each func(key, value []byte) error) error

func (f scanFunc) Scan(_ context.Context, _ []byte, _ bool, each func(key, value []byte) error) error {
	return f(each)
}
