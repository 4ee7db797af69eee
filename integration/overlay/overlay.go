// Package overlay changes sources for one run of the go command, by its -overlay
// flag: neither the tree nor any release ever contains the change. Planted bugs
// and switched-off containments are made of it.
//
// Row 5 of the layers: it reads and writes files.
package overlay

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// An Edit replaces Text by Without in File, a path from the module's root with
// slashes. The file must contain Text exactly once, so that a list of edits can't
// go out of date unnoticed.
type Edit struct{ File, Text, Without string }

// One is a single edit.
func One(file, text, without string) []Edit {
	return []Edit{{File: file, Text: text, Without: without}}
}

// Sources returns the edited sources, by file. Edits of one file are made one
// after the other.
func Sources(root string, edits []Edit) (map[string]string, error) {
	sources := map[string]string{}
	for _, e := range edits {
		source, ok := sources[e.File]
		if !ok {
			content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(e.File)))
			if err != nil {
				return nil, err
			}
			source = string(content)
		}
		if n := strings.Count(source, e.Text); n != 1 {
			return nil, fmt.Errorf("%s has %q %d times, not once: update the list", e.File, e.Text, n)
		}
		sources[e.File] = strings.Replace(source, e.Text, e.Without, 1)
	}
	return sources, nil
}

// Write writes the edited sources into dir, and returns the name of the file that
// tells the go command to use them. It must be called in the module's root.
func Write(dir string, edits []Edit) (string, error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	sources, err := Sources(root, edits)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, content := range sources {
		name := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, filepath.FromSlash(file))] = name
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, text, 0o600)
}
