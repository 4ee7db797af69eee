package transfer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"
)

// ExportLines writes every key to a new file of JSON lines, as JSONLines reads them:
// it takes every key, also those that can't be names of files. The file appears at
// once, whole, when everything is on the disk; one that is there already is refused
// with an error that matches fs.ErrExist.
func ExportLines(ctx context.Context, from Scanner, path string, live *Live) (ExportResult, error) {
	start := time.Now()
	if _, err := os.Lstat(path); err == nil {
		return ExportResult{}, &os.PathError{Op: "export", Path: path, Err: os.ErrExist}
	}
	err := writeLines(ctx, from, path, live)
	result := ExportResult{Seconds: time.Since(start).Seconds()}
	if err == nil {
		result.Keys, result.Bytes = live.Keys(), live.Bytes()
	}
	return result, err
}

func writeLines(ctx context.Context, from Scanner, path string, live *Live) (err error) {
	// Under a name that imports leave out: it stays behind where this process is killed.
	f, err := os.OpenFile(filepath.Join(filepath.Dir(path), newStagingName()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	err = from.Scan(ctx, nil, false, func(key, value []byte) error {
		live.add(len(value))
		return encoder.Encode(lineOf(key, value))
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	// A link, unlike a rename, replaces nothing.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()), syncDir(filepath.Dir(path), nil))
}

// A line is a record as JSON.
type line struct {
	Key         *string `json:"key,omitempty"`
	KeyBase64   []byte  `json:"key_base64,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 []byte  `json:"value_base64,omitempty"`
}

func lineOf(key, value []byte) (l line) {
	if text := string(key); utf8.Valid(key) {
		l.Key = &text
	} else {
		l.KeyBase64 = key
	}
	if text := string(value); utf8.Valid(value) {
		l.Value = &text
	} else {
		l.ValueBase64 = value
	}
	return l
}
