package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// listed is a Scanner of a few records.
type listed struct {
	records map[string]string
	fail    error // in the end
}

func (l listed) Scan(_ context.Context, _ []byte, _ bool, each func(key, value []byte) error) error {
	for key, value := range l.records {
		if err := each([]byte(key), []byte(value)); err != nil {
			return err
		}
	}
	return l.fail
}

// Claim: whatever keys and values are exported as lines is what an import reads from
// them; a file that is there is never replaced, and one that did not become whole
// never appears.
func TestExportLines(t *testing.T) {
	all := map[string]string{"a": "1", "a/b": "", "../x": "<&>\u2028", "\xff\xfe": "\x00\xff", "line\nbreak": "\ufffd", "é": "\"quoted\"\\"}
	path := filepath.Join(t.TempDir(), "out.jsonl")
	var live Live
	result, err := ExportLines(t.Context(), listed{all, nil}, path, &live)
	if err != nil || result.Keys != uint64(len(all)) {
		t.Fatalf("%+v, %v", result, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := map[string]string{}
	err = NewJSONLines(f, path, 0).Each(t.Context(), &live, func(it Item) error {
		if it.Problem != nil {
			return fmt.Errorf("%s: %w", it.Name, it.Problem)
		}
		value, err := it.Load()
		read[string(it.Key)] = string(value)
		return err
	})
	if err != nil || !maps.Equal(read, all) {
		t.Errorf("read %q, %v", read, err)
	}
	if _, err := ExportLines(t.Context(), listed{all, nil}, path, new(Live)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a file that is there: %v", err)
	}
	failed := errors.New("cut off")
	other := filepath.Join(filepath.Dir(path), "other.jsonl")
	if _, err := ExportLines(t.Context(), listed{all, failed}, other, new(Live)); !errors.Is(err, failed) {
		t.Errorf("a failing source: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("%d files are there", len(left))
	}
}

// during is a Scanner that calls something in the middle.
type during func()

func (d during) Scan(_ context.Context, _ []byte, _ bool, each func(key, value []byte) error) error {
	d()
	return each([]byte("k"), []byte("v"))
}

// What a killed export of lines leaves behind is no key of a later import, which tells
// of it.
func TestLeftoverLinesAreNoKeys(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(t.TempDir(), "left") // as the disk is in the middle of an export
	killed := during(func() {
		if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
			t.Error(err)
		}
	})
	if _, err := ExportLines(t.Context(), killed, filepath.Join(dir, "out.jsonl"), new(Live)); err != nil {
		t.Fatal(err)
	}
	src, err := NewDir(left)
	if err != nil {
		t.Fatal(err)
	}
	s, told := newFakeStore(), 0
	result, err := Import(t.Context(), s, src, ImportOptions{Skipped: func(_ string, why error) {
		if told++; !errors.Is(why, errLeftover) {
			t.Error(why)
		}
	}}, new(Live))
	if err != nil || told != 1 || len(s.data()) != 0 {
		t.Errorf("told of %d, imported %q: %+v, %v", told, s.data(), result, err)
	}
}
