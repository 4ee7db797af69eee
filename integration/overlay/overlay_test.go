package overlay

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Claim: edits of one file follow each other, files of one name in two folders
// stay apart, and what is not found exactly once is refused.
func TestWrite(t *testing.T) {
	t.Chdir(t.TempDir())
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"a", "b"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "f.go"), []byte(dir+" one two two"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name, err := Write(t.TempDir(), slices.Concat(
		One("a/f.go", "one", "1"), One("a/f.go", "1 two two", "2"), One("b/f.go", "one", "3")))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(text, &overlay); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"a/f.go": "a 2", "b/f.go": "b 3 two two"} {
		got, err := os.ReadFile(overlay.Replace[filepath.Join(root, file)])
		if err != nil || string(got) != want {
			t.Errorf("%s becomes %q, %v; want %q", file, got, err, want)
		}
	}
	for _, bad := range [][]Edit{One("a/f.go", "two", ""), One("a/f.go", "three", ""), One("c/f.go", "one", "")} {
		if _, err := Write(t.TempDir(), bad); err == nil {
			t.Errorf("%v was made", bad)
		}
	}
}
