package transfer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// byteOrderMark is what some editors put in front of a text.
const byteOrderMark = "\ufeff"

// The fields of a record. Their names are compared byte by byte.
const (
	fieldKey         = "key"
	fieldKeyBase64   = "key_base64"
	fieldValue       = "value"
	fieldValueBase64 = "value_base64"
)

// decode fills the item from a line of JSON. encoding/json takes "KEY" for "key",
// keeps the last of two fields of one name, and replaces what is no Unicode by
// U+FFFD, all silently: two keys would become one. Here such a line is a problem.
func (it *Item) decode(line []byte) {
	fields, err := recordFields(line)
	if err != nil {
		it.Problem = err
		return
	}
	key, err := fieldBytes(fields, fieldKey, fieldKeyBase64)
	if err != nil {
		it.Problem = err
		return
	}
	value, err := fieldBytes(fields, fieldValue, fieldValueBase64)
	if err != nil {
		it.Problem = err
		return
	}
	it.Key, it.Size = key, int64(len(value))
	it.Load = func() ([]byte, error) { return value, nil }
}

// recordFields returns the fields of a record as they are encoded.
func recordFields(line []byte) (map[string]json.RawMessage, error) {
	switch {
	case bytes.HasPrefix(line, []byte(byteOrderMark)):
		return nil, errors.New("not a record: a byte order mark (EF BB BF) stands before it; save the file as UTF-8 without one")
	case !utf8.Valid(line):
		return nil, errors.New("not UTF-8: use key_base64 and value_base64 for such bytes")
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	if t, err := dec.Token(); err != nil {
		return nil, notARecord(err)
	} else if t != json.Delim('{') {
		return nil, errors.New("not a record: it must be a JSON object")
	}
	fields := map[string]json.RawMessage{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, notARecord(err)
		}
		var encoded json.RawMessage
		if err := dec.Decode(&encoded); err != nil {
			return nil, notARecord(err)
		}
		switch name {
		case fieldKey, fieldKeyBase64, fieldValue, fieldValueBase64:
			if _, twice := fields[name.(string)]; twice {
				return nil, fmt.Errorf("not a record: %q is there twice", name)
			}
			fields[name.(string)] = encoded
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, notARecord(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a record: something follows the object on its line")
	}
	return fields, nil
}

// fieldBytes returns what one of two fields says: as text, or in base64.
func fieldBytes(fields map[string]json.RawMessage, text, inBase64 string) ([]byte, error) {
	encoded, isText := fields[text]
	encoded64, isBase64 := fields[inBase64]
	switch {
	case isText && isBase64:
		return nil, fmt.Errorf("both %s and %s", text, inBase64)
	case isText:
		return fieldText(text, encoded)
	case isBase64:
		digits, err := fieldText(inBase64, encoded64)
		if err != nil {
			return nil, err
		}
		b, err := base64.StdEncoding.Strict().DecodeString(string(digits))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", inBase64, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("neither %s nor %s", text, inBase64)
}

// fieldText decodes a JSON string.
func fieldText(name string, encoded json.RawMessage) ([]byte, error) {
	if encoded[0] != '"' {
		return nil, fmt.Errorf("not a record: %q must be a JSON string", name)
	}
	if at, ok := loneSurrogate(encoded); ok {
		return nil, fmt.Errorf("%s has the escape %s, half of a surrogate pair, which stands for no character: use %s_base64 for such bytes", name, at, name)
	}
	var text string
	if err := json.Unmarshal(encoded, &text); err != nil {
		return nil, notARecord(err)
	}
	return []byte(text), nil
}

// loneSurrogate returns the first escape of a valid JSON string that is one half
// of a UTF-16 surrogate pair without the other.
func loneSurrogate(encoded []byte) (escape string, found bool) {
	const escapeLen = len(`\uXXXX`)
	for i := 0; i < len(encoded); {
		switch {
		case encoded[i] != '\\':
			i++
		case encoded[i+1] != 'u':
			i += 2
		case isSurrogate(encoded[i:], 0xd800) && isSurrogate(encoded[i+escapeLen:], 0xdc00):
			i += 2 * escapeLen
		case isSurrogate(encoded[i:], 0xd800), isSurrogate(encoded[i:], 0xdc00):
			return string(encoded[i : i+escapeLen]), true
		default:
			i += escapeLen
		}
	}
	return "", false
}

// isSurrogate reports whether text begins with the escape of a surrogate of the
// half that begins at first.
func isSurrogate(text []byte, first uint64) bool {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return false
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return err == nil && unit&^0x3ff == first
}

// notARecord says why a line is none.
func notARecord(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("not a record: %w", err)
}
