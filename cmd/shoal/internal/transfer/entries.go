package transfer

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// entriesBatch is how many entries of a directory are in memory at a time: some
// directories have millions.
const entriesBatch = 1024

// readBatch returns the next entries of an open directory; none: there are no
// more.
func readBatch(dir *os.File) ([]fs.DirEntry, error) {
	entries, err := dir.ReadDir(entriesBatch)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return entries, err
}

// eachEntry calls each for the entries of an open directory, in no particular
// order, until it returns an error.
func eachEntry(dir *os.File, each func(fs.DirEntry) error) error {
	for {
		entries, err := readBatch(dir)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			if err := each(e); err != nil {
				return err
			}
		}
	}
}
