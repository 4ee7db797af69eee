package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A bug is a mistake that the product does not make, and who must notice it.
type bug struct {
	name string
	// source says whose mistake it is; the lists set it for all of theirs.
	source string
	edits  []edit
	// catchers are asked in order, until one notices: the cheap ones first.
	catchers []catcher
}

// An edit replaces text, which the file must contain exactly once. Edits of one
// file are made one after the other.
type edit struct{ file, text, without string }

// one is the edit of a bug that needs no other.
func one(file, text, without string) []edit { return []edit{{file, text, without}} }

// everything is all lists, in the order of the table.
func everything() []bug {
	var all []bug
	for _, l := range []struct {
		source string
		bugs   []bug
	}{
		{"handoff protocol", handoffBugs},
		{"repair", repairBugs},
		{"exactly once", onceBugs},
		{"classic", classicBugs},
		{"shipped by others", shippedBugs},
		{"read path", readBugs},
		{"Raft and storage", raftBugs},
		{"controller", controllerBugs},
		{"client", clientBugs},
		{"judge", judgeBugs},
		{"found here", foundBugs},
	} {
		for _, b := range l.bugs {
			b.source = l.source
			all = append(all, b)
		}
	}
	return all
}

// planted returns the sources with the bug in them, by file.
func (b *bug) planted(root string) (map[string]string, error) {
	sources := map[string]string{}
	for _, e := range b.edits {
		source, ok := sources[e.file]
		if !ok {
			content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(e.file)))
			if err != nil {
				return nil, err
			}
			source = string(content)
		}
		if n := strings.Count(source, e.text); n != 1 {
			return nil, fmt.Errorf("%s has %q %d times, not once: update the list", e.file, e.text, n)
		}
		sources[e.file] = strings.Replace(source, e.text, e.without, 1)
	}
	return sources, nil
}

// overlay writes the sources with the bug into dir, and returns the file that
// tells the go command to use them.
func (b *bug) overlay(dir string) (string, error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	sources, err := b.planted(root)
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
