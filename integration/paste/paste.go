// Package paste takes the code blocks out of the documents, so that tests can run
// what a reader would paste.
//
// It imports the standard library only. A Play owns the processes and goroutines
// that it starts until Run returns.
package paste

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Block is a fenced block of code in a document.
type Block struct {
	Doc      string // its path in the repository
	Line     int    // of the fence
	Language string // as the fence says: sh, go; empty: none
	Text     string
}

// Blocks returns the fenced blocks of the README and of docs/*.md below root, in
// order.
func Blocks(root string) ([]Block, error) {
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	var blocks []Block
	for _, path := range append([]string{filepath.Join(root, "README.md")}, docs...) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		doc, err := filepath.Rel(root, path)
		if err != nil {
			return nil, err
		}
		found, err := blocksOf(doc, string(text))
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, found...)
	}
	return blocks, nil
}

func blocksOf(doc, text string) (blocks []Block, err error) {
	open := false
	number := 0
	for line := range strings.Lines(text) {
		number++
		language, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fence && !open:
			blocks = append(blocks, Block{Doc: doc, Line: number, Language: language})
			open = true
		case fence:
			open = false
		case open:
			blocks[len(blocks)-1].Text += line
		}
	}
	if open {
		return nil, fmt.Errorf("%s:%d: the block does not end", doc, blocks[len(blocks)-1].Line)
	}
	return blocks, nil
}
