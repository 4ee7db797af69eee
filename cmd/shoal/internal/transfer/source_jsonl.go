package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/shoalkv/shoal/shardctrler/shardcfg"
)

// lineBytesMax is the longest line that is read: a record in which every byte is
// escaped (six characters each), and some room.
const lineBytesMax = 6*(shardcfg.ValueBytesMax+shardcfg.KeyBytesMax) + 4<<10

// JSONLines is a Source of one record per line: {"key","value"}, or key_base64
// and value_base64 where they are not UTF-8. Other fields, and empty lines, are
// ignored, so that the output of a scan can be imported.
type JSONLines struct {
	r    *bufio.Reader
	name string
	size uint64
	read uint64
}

// NewJSONLines reads from r, which is called name in messages and has size
// bytes (0: not known).
func NewJSONLines(r io.Reader, name string, size int64) *JSONLines {
	return &JSONLines{r: bufio.NewReaderSize(r, 256<<10), name: name, size: uint64(max(size, 0))}
}

// Each yields the records. Lines that are no records are yielded with their
// problem.
func (j *JSONLines) Each(ctx context.Context, live *Live, yield func(Item) error) error {
	live.total.Store(j.size)
	for number := 1; ; number++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := j.line()
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errLineTooLong) {
			return fmt.Errorf("read %s: %w", j.name, err)
		}
		it := Item{Name: fmt.Sprintf("%s:%d", j.name, number), progress: j.read}
		switch {
		case errors.Is(err, errLineTooLong):
			it.Problem = err
		case len(bytes.TrimSpace(line)) == 0:
			if err != nil {
				return nil
			}
			continue
		default:
			it.decode(line)
		}
		if yieldErr := yield(it); yieldErr != nil {
			return yieldErr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

var errLineTooLong = fmt.Errorf("line is longer than %d bytes: %w", lineBytesMax, shardcfg.ErrValueTooLarge)

// line returns the next line; the memory is the caller's. With the last one, or
// after it, comes io.EOF. Of a line that is too long only errLineTooLong remains.
func (j *JSONLines) line() ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := j.r.ReadSlice('\n')
		j.read += uint64(len(part))
		long = long || len(line)+len(part) > lineBytesMax
		if long {
			line = nil
		} else {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case long && (err == nil || errors.Is(err, io.EOF)):
			return nil, errLineTooLong
		default:
			return line, err
		}
	}
}

// decode fills the item from a line of JSON.
func (it *Item) decode(line []byte) {
	var record struct {
		Key         *string `json:"key"`
		KeyBase64   *string `json:"key_base64"`
		Value       *string `json:"value"`
		ValueBase64 *string `json:"value_base64"`
	}
	// encoding/json would silently replace what is not UTF-8.
	if !utf8.Valid(line) {
		it.Problem = errors.New("not UTF-8: use key_base64 and value_base64 for such bytes")
		return
	}
	if err := json.Unmarshal(line, &record); err != nil {
		it.Problem = notARecord(err)
		return
	}
	key, err := fieldBytes("key", record.Key, record.KeyBase64)
	if err != nil {
		it.Problem = err
		return
	}
	value, err := fieldBytes("value", record.Value, record.ValueBase64)
	if err != nil {
		it.Problem = err
		return
	}
	it.Key, it.Size = key, int64(len(value))
	it.Load = func() ([]byte, error) { return value, nil }
}

func fieldBytes(name string, text, inBase64 *string) ([]byte, error) {
	switch {
	case text != nil && inBase64 != nil:
		return nil, fmt.Errorf("both %s and %s_base64", name, name)
	case text != nil:
		return []byte(*text), nil
	case inBase64 != nil:
		b, err := base64.StdEncoding.DecodeString(*inBase64)
		if err != nil {
			return nil, fmt.Errorf("%s_base64: %w", name, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("neither %s nor %s_base64", name, name)
}

// notARecord says why a line is none, without the names of this program.
func notARecord(err error) error {
	var mistyped *json.UnmarshalTypeError
	if !errors.As(err, &mistyped) {
		return fmt.Errorf("not a record: %w", err)
	}
	if mistyped.Field == "" {
		return fmt.Errorf("not a record: a JSON object is, and this is a JSON %s", mistyped.Value)
	}
	return fmt.Errorf("not a record: %q must be a JSON string, and is a %s", mistyped.Field, mistyped.Value)
}
