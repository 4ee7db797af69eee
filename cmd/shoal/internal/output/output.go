// Package output writes what the commands found: aligned tables for people,
// JSON for programs, and progress on anything that takes longer than a second.
//
// Results go to stdout and everything else to stderr; a command owns its Printer
// and uses it from one goroutine. Only a Progress owns a goroutine, from its
// start to its Stop. It imports the standard library, golang.org/x/term, and
// progressbar for what is drawn on a terminal.
package output

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"
)

// A Format is how results are written.
type Format string

const (
	// Table is aligned columns, for people.
	Table Format = "table"
	// JSON is one object, or one object a line for a stream of results.
	JSON Format = "json"
)

// ParseFormat reads the name of a format.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Table, JSON:
		return f, nil
	}
	return "", fmt.Errorf("no output format %q: it is table or json", s)
}

// A Printer writes results to one stream in one format.
type Printer struct {
	w      *bufio.Writer
	format Format
}

// NewPrinter returns a Printer that writes to w. It buffers: the caller flushes
// it at the end, and wherever someone may be waiting for a line.
func NewPrinter(w io.Writer, format Format) *Printer {
	return &Printer{w: bufio.NewWriterSize(w, 64<<10), format: format}
}

// IsJSON reports whether results are for programs.
func (p *Printer) IsJSON() bool { return p.format == JSON }

// Object writes v as one line of JSON.
func (p *Printer) Object(v any) error {
	line, err := EncodeJSON(v)
	if err != nil {
		return err
	}
	_, err = p.w.Write(line)
	return err
}

// Linef writes a line of text.
func (p *Printer) Linef(format string, args ...any) error {
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil {
		return err
	}
	return p.w.WriteByte('\n')
}

// Raw writes bytes as they are.
func (p *Printer) Raw(parts ...[]byte) error {
	for _, b := range parts {
		if _, err := p.w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// Rows writes aligned columns below their headings.
func (p *Printer) Rows(headings []string, rows [][]string) error {
	return WriteTable(p.w, headings, rows)
}

// Flush hands on everything written so far.
func (p *Printer) Flush() error { return p.w.Flush() }

// EncodeJSON encodes v as one line that ends with a newline. Unlike
// json.Marshal it leaves '<', '>' and '&' as they are: the output is for
// terminals and programs, not for web pages.
func EncodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a result as JSON: %w", err)
	}
	return buf.Bytes(), nil
}

// Text splits bytes into the two JSON fields that can hold them: as text where
// they are UTF-8, else in base64. Exactly one of the results is non-nil.
func Text(b []byte) (text, inBase64 *string) {
	if utf8.Valid(b) {
		s := string(b)
		return &s, nil
	}
	s := base64.StdEncoding.EncodeToString(b)
	return nil, &s
}

// A Key is a key as a result names it: Key where it is UTF-8, else KeyBase64.
// It is embedded in the results' structs.
type Key struct {
	Key       *string `json:"key,omitempty"`
	KeyBase64 *string `json:"key_base64,omitempty"`
}

// KeyOf returns the fields for key.
func KeyOf(key []byte) Key {
	text, raw := Text(key)
	return Key{Key: text, KeyBase64: raw}
}

// A Value is a value as a result names it: Value where it is UTF-8, else
// ValueBase64.
type Value struct {
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
}

// ValueOf returns the fields for value.
func ValueOf(value []byte) Value {
	text, raw := Text(value)
	return Value{Value: text, ValueBase64: raw}
}
